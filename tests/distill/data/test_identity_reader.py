"""What a run was made from, read of a cache and a folder: what counts, and what does not."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
from conftest import OOD_CLASSES, Counted, write_image
from helpers.given_samples import Given
from helpers.identity_runs import cache_of, config_of, reader

from cache import EmbeddingCache
from cache.changed_images import contents_of
from cache.sources.data import open_data
from distill.data.identity_reader import IdentityReader, split_identity
from distill.train.start import train as run


def test_an_identity_depends_on_neither_place_nor_time_nor_order(made, tmp_path):
    shutil.copytree(made / "photos", tmp_path / "photos")  # with other times of the files
    for path in (tmp_path / "photos").rglob("*.jpg"):
        os.utime(path, ns=(1, 1))
    config = config_of(made)
    cached = cache_of(tmp_path / "cache", tmp_path / "photos")
    there = IdentityReader(cache=cached, folder=open_data([tmp_path / "photos"])).of(config)
    here = reader(made).of(config)
    assert there == here
    assert str(made) not in json.dumps(here.to_json())
    split = open_data([made / "photos"]).split("train")
    back = Given(split.classes, split.all()[::-1])
    assert split_identity(back, contents_of(back.all())) == replace(here.learnt_from["train"], rows="")


def test_every_image_counts_once_and_training_images_only_with_a_row(made, tmp_path):
    shutil.copytree(made / "photos", tmp_path / "photos")
    for split in ("train", "val_on_train"):
        write_image(tmp_path / "photos" / split / "apple" / "new.jpg", (9, 9, 9), np.random.default_rng(3))
    identity = IdentityReader(
        cache=EmbeddingCache.open(made / "cache"), folder=open_data([tmp_path / "photos"])
    ).of(config_of(made))
    lines = identity.differences(reader(made).of(config_of(made)))
    assert lines == ["id_test: 13 images here, 12 when it was trained"]


def test_an_import_that_knows_no_images_is_told_by_its_rows(made, tmp_path):
    one = cache_of(tmp_path / "one", made / "photos", with_data=False)
    other = cache_of(tmp_path / "other", made / "photos", with_data=False, order=-1)
    assert one.fingerprint == other.fingerprint
    folder = open_data([made / "photos"])
    mine, theirs = (IdentityReader(cache=c, folder=folder).of(config_of(made)) for c in (one, other))
    assert mine.differences(theirs) == [
        f"{split}: other rows of the same images" for split in ("train", "id_test", "ood_test")
    ]
    swapped = cache_of(tmp_path / "swapped", made / "photos", with_data=False, swapped=OOD_CLASSES)
    of_swapped = IdentityReader(cache=swapped, folder=folder).of(config_of(made))
    assert of_swapped.differences(mine) == ["text bank main/labels: other texts of lemon, plum"]


def test_training_names_the_images_that_are_gone(made):
    progress = Counted()
    reader(made, data="half").note_gone(progress)
    (line,) = progress.notes
    assert line.startswith("4 of 8 images of ood_test that ")
    assert line.endswith("any more: lemon/val_1.jpg, lemon/val_3.jpg, plum/val_1.jpg and 1 more")


def test_training_names_test_images_that_cannot_be_read(made, tmp_path):
    shutil.copytree(made / "photos", tmp_path / "photos")
    (tmp_path / "photos" / "val" / "plum" / "val_9.jpg").write_bytes(b"no picture")
    progress = Counted()
    run(
        config_of(made),
        cache_dir=made / "cache",
        data_dir=tmp_path / "photos",
        out=tmp_path / "run",
        progress=progress,
    )
    assert (
        sum(
            "1 of 9 images of ood_test cannot be read and are left out: plum/val_9.jpg (" in n
            for n in progress.notes
        )
        == 1
    )


def test_the_identity_of_a_config_does_not_read_the_files_again(own):
    identities = reader(own)
    first = identities.of(config_of(own))
    shutil.rmtree(own / "photos")
    assert identities.of(config_of(own, "text=others")).learnt_from == first.learnt_from
