from __future__ import annotations

import numpy as np
import pytest

from cache.sources.data import open_data
from cache.sources.episodes import EpisodeFolder, EpisodeSample
from cache.sources.folder_listing import FolderRoot
from cache.sources.image_folder import ImageSample
from cache.sources.samples import labels_of


def test_classes_are_numbered_as_the_names_are_given(tmp_path):
    samples = [
        ImageSample(key=key, of=FolderRoot(root=str(tmp_path))) for key in ("b/1.jpg", "a/1.jpg", "b/2.jpg")
    ]
    np.testing.assert_array_equal(labels_of(samples, ("a", "b")), [1, 0, 1])
    np.testing.assert_array_equal(labels_of(samples, ("b", "new", "a")), [0, 2, 0])
    assert labels_of(samples, ("a", "b")).dtype == np.int64
    assert labels_of([], ("a", "b")).shape == (0,)


def test_several_classes_are_ones_among_zeros(tmp_path):
    samples = [
        EpisodeSample(key=str(n), path=tmp_path, labels=labels) for n, labels in enumerate([(), ("b", "a")])
    ]
    np.testing.assert_array_equal(
        labels_of(samples, ("a", "x", "b"), multi_label=True), [[0, 0, 0], [1, 0, 1]]
    )
    assert labels_of([], ("a", "x", "b"), multi_label=True).shape == (0, 3)


def test_a_class_without_a_number_is_no_label(tmp_path):
    with pytest.raises(ValueError, match=r"c/1.jpg is of \('c',\)"):
        labels_of([ImageSample(key="c/1.jpg", of=FolderRoot(root=str(tmp_path)))], ("a", "b"))
    with pytest.raises(ValueError, match="not one of 2"):
        labels_of([EpisodeSample(key="1", path=tmp_path, labels=("a", "b"))], ("a", "b"))


def test_classes_of_a_folder_are_those_of_each_split(photos, episodes):
    folder = open_data([photos])
    assert folder.classes == {name: split.classes for name, split in folder.splits.items()}
    assert folder.class_names == tuple(sorted({*folder.classes["train"], *folder.classes["ood_test"]}))
    of_robot = EpisodeFolder.scan(episodes)
    assert of_robot.class_names == of_robot.classes["ood_test"]
    assert of_robot.class_names[: len(of_robot.classes["train"])] == of_robot.classes["train"]
