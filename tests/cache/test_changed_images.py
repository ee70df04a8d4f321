"""Images that are no longer what a cache's rows were made of."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import h5py
import numpy as np
import pytest
from conftest import write_image
from helpers.given_samples import Given
from helpers.identity_runs import config_of

from cache import EmbeddingCache
from cache.changed_images import contents_of
from cache.runtime.errors import CacheMismatch
from cache.sources.data import open_data
from cache.sources.episodes import EpisodeFolder
from distill.data.identity_reader import split_identity
from distill.judge.open_run import space_of_run
from distill.train.session import open_session


def test_a_file_of_the_size_and_time_of_its_row_is_not_read(own):
    rows, folder = EmbeddingCache.open(own / "cache").split("train"), open_data([own / "photos"])
    images = folder.split("train").all()
    before, path = contents_of(images, rows), Path(images[0].where)
    assert (before.changed, before.read) == ((), {})
    assert [rows.keys[row] for row in before.row_of] == [image.key for image in images]
    status, size = path.stat(), path.stat().st_size
    path.write_bytes(b"0" * size)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert contents_of(images, rows).changed == ()
    os.utime(path, ns=(0, 0))
    after = contents_of(images, rows)
    assert after.changed == (images[0].key,)
    assert after.read == {0: sha256(b"0" * size).digest()}
    alone = contents_of(images)  # joined to nothing, nothing has changed
    assert alone.changed == ()
    assert sorted(alone.read) == list(range(len(images)))
    assert set(alone.row_of.tolist()) == {-1}


def test_a_touched_file_is_read_and_is_the_same(own):
    rows, images = (
        EmbeddingCache.open(own / "cache").split("train"),
        open_data([own / "photos"]).split("train").all(),
    )
    for image in images:
        os.utime(Path(image.where), ns=(5, 5))
    after = contents_of(images, rows)
    assert after.changed == ()
    assert after.read == {i: rows.files.content[row].tobytes() for i, row in enumerate(after.row_of)}


def test_an_image_without_a_row_is_read_and_one_that_cannot_be_has_no_content(own):
    write_image(own / "photos" / "train" / "apple" / "new.jpg", (1, 2, 3), np.random.default_rng(9))
    rows = EmbeddingCache.open(own / "cache").split("train")
    images = open_data([own / "photos"]).split("train").all()
    (new,) = (i for i, image in enumerate(images) if image.key == "apple/new.jpg")
    contents = contents_of(images, rows)
    assert contents.read == {new: sha256(Path(images[new].where).read_bytes()).digest()}
    assert np.flatnonzero(contents.row_of < 0).tolist() == [new]
    Path(images[new].where).unlink()
    Path(images[-1].where).unlink()
    assert contents_of(images, rows).read == {new: bytes(32), len(images) - 1: bytes(32)}
    assert contents_of(images, rows).changed == (images[-1].key,)


@pytest.mark.parametrize(
    ("split", "key"),
    [
        ("train", "apple/train_0.jpg"),
        ("val_on_train", "cherry/val_on_train_1.jpg"),
        ("val", "plum/val_2.jpg"),
    ],
)
def test_an_image_overwritten_after_caching_stops_training(own, split, key):
    write_image(own / "photos" / split / key, (1, 2, 3), np.random.default_rng(9))
    ours = {"train": "train", "val_on_train": "id_test", "val": "ood_test"}[split]
    with pytest.raises(CacheMismatch, match=rf"1 images of {ours} in .*photos .*\({key}\).*Fix: .*again"):
        open_session(config_of(own), cache_dir=own / "cache", data_dir=own / "photos")


def test_images_renumbered_after_caching_stop_training_by_the_first_three(own):
    folder = own / "photos" / "train" / "banana"
    files = sorted(folder.iterdir())
    for path in files:
        path.rename(path.with_suffix(".away"))
    for path, name in zip(files, [*files[1:], files[0]], strict=True):
        path.with_suffix(".away").rename(name)
    message = r"8 images of train .*\(banana/train_0.jpg, banana/train_1.jpg, banana/train_2.jpg and 5 more\)"
    with pytest.raises(CacheMismatch, match=message):
        open_session(config_of(own), cache_dir=own / "cache", data_dir=own / "photos")
    with pytest.raises(CacheMismatch, match="8 images of train"):
        space_of_run(own / "runs" / "all", data_dir=own / "photos", device="cpu")


def test_depth_and_labels_are_part_of_an_episodes_content(episodes, tmp_path):
    shutil.copytree(episodes, tmp_path / "episodes")
    before = EpisodeFolder.scan(tmp_path / "episodes").split("ood_test")
    contents = contents_of(before.all())
    with h5py.File(tmp_path / "episodes" / "val.h5", "r+") as file:
        depth = file[before.all()[0].key]["dict_str_hand_camera"]["dict_str_depth"]
        depth[...] = depth[...] + 1
    now = contents_of(before.all())
    assert [i for i in contents.read if now.read[i] != contents.read[i]] == [0]
    first = replace(before.all()[0], labels=tuple(set(before.classes) - {*before.all()[0].labels}))
    other = split_identity(Given(before.classes, (first, *before.all()[1:]), True), contents)
    assert split_identity(before, contents).differences(other) == ["other labels of the same images"]
