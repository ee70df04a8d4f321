from __future__ import annotations

import os
import shutil

import pytest
from conftest import COLOURS, write_image

from cache.runtime.errors import UserError
from cache.sources.key_hashes import hashes_of
from distill.adapt.names import Names
from distill.adapt.photos import look
from distill.data.id_val import SetAside

NAMES = Names(words=("apple", "red banana", "cherry", "lemon"))


@pytest.fixture
def found(tmp_path, write_jpeg):
    """A folder of photos: two that are called as names, others, and some without a folder."""
    for folder, count in (("Apple", 12), ("sorted/red_banana", 14), ("holiday", 5), (".", 4)):
        for i in range(count):
            write_jpeg(tmp_path / "found" / folder / f"{i}.jpg")
    return tmp_path / "found"


def test_a_folder_called_as_a_name_is_a_label_at_any_depth_and_all_else_is_pool(found):
    photos = look([str(found)], NAMES)
    assert photos.counts == {"train": 26, "pool": 9}
    named = {(os.path.dirname(photo.key), photo.name) for photo in photos.photos}
    assert named == {("Apple", "apple"), ("sorted/red_banana", "red_banana"), ("holiday", ""), ("", "")}


def test_of_many_labelled_photos_some_of_each_name_are_a_test_the_same_every_time(found, write_jpeg):
    for i in range(60):
        write_jpeg(found / "cherry" / f"{i}.jpg")
    write_jpeg(found / "lemon" / "0.jpg")
    photos = look([str(found)], NAMES)
    tests = {photo.key for photo in photos.photos if photo.split == "id_test"}
    assert 8 <= len(tests) <= 30
    left = [photo for photo in photos.photos if photo.split == "train"]
    assert {photo.name for photo in left} == {*NAMES.classes}
    # A run sets some of what is left aside to choose on.
    assert SetAside(share=0.2).of(hashes_of(photo.key for photo in left)).sum() >= 4
    write_jpeg(found / "cherry" / "more.jpg")
    assert {p.key for p in look([str(found)], NAMES).photos if p.split == "id_test"} - tests <= {
        "cherry/more.jpg"
    }


def test_a_list_labels_photos_that_a_folder_holds(found, tmp_path):
    rows = [f"{found}/holiday/{i}.jpg,CHERRY" for i in range(5)] + [f"{found}/0.jpg,3", f"{found}/1.jpg,kiwi"]
    (tmp_path / "labels.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    photos = look([str(found), str(tmp_path / "labels.csv")], NAMES)
    names = {photo.place: photo.name for photo in photos.photos}
    assert [names[f"{found}/{key}"] for key in ("holiday/3.jpg", "0.jpg", "1.jpg")] == ["cherry", "lemon", ""]
    assert len(names) == 35
    assert any("of no name in the list, and so without a label: 'kiwi' (1)" in note for note in photos.notes)


def test_folders_of_splits_hold_them_and_what_is_learnt_decides_which_test_a_name_is_of(photos):
    names = Names(words=("apple", "banana", "cherry", "lemon", "plum"))
    for i in range(3):
        shutil.copy(
            photos / "val" / "lemon" / f"val_{i}.jpg", photos / "val_on_train" / "apple" / f"as_{i}.jpg"
        )
    write_jpeg_of(photos / "val_on_train" / "lemon" / "new.jpg")
    found = look([str(photos)], names)
    assert found.counts == {"train": 24, "id_test": 9, "ood_test": 7}
    assert sum("that another is a copy of" in note for note in found.notes) == 1
    assert sum("of one content and two names" in note for note in found.notes) == 1


def write_jpeg_of(path):
    import numpy as np

    write_image(path, COLOURS["lemon"], np.random.default_rng(7))


def test_a_copy_of_a_test_photo_is_not_learnt_from(photos):
    shutil.copytree(photos / "val_on_train", photos / "pool" / "again")
    found = look([str(photos)], Names(words=("apple", "banana", "cherry", "lemon", "plum")))
    assert found.counts == {"train": 24, "id_test": 9, "ood_test": 6}
    assert any("left out: 9 photos that another is a copy of" in note for note in found.notes)


def test_a_few_labelled_photos_are_as_those_without_a_label(found):
    shutil.rmtree(found / "Apple")
    photos = look([str(found)], NAMES)
    assert (photos.counts, photos.has_labels) == ({"pool": 23}, False)
    assert any("14 labelled photos are too few to judge by" in note for note in photos.notes)


def test_what_is_not_there_or_too_few_or_no_photos_is_said(tmp_path, write_jpeg):
    with pytest.raises(UserError, match="nowhere does not exist"):
        look([str(tmp_path / "nowhere")], NAMES)
    for i in range(3):
        write_jpeg(tmp_path / "few" / f"{i}.jpg")
    with pytest.raises(UserError, match=r"has 3 photos\. Fix: give at least 10"):
        look([str(tmp_path / "few")], NAMES)
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "a.txt").write_text("no photo")
    with pytest.raises(UserError, match=r"has 0 photos; left out: 1 of no picture format: a\.txt"):
        look([str(tmp_path / "texts")], NAMES)
    (tmp_path / "one.txt").write_text("no photo")
    with pytest.raises(UserError, match=r"one\.txt"):
        look([str(tmp_path / "one.txt")], NAMES)
