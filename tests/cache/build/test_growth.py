"""The same command after the data changed: only what is new is embedded, and one line says what changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from conftest import Counted
from helpers.caches import rows_of

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.verify import verify_cache
from cache.store.journal import Journal


@pytest.fixture
def build(teacher_dir, photos, tmp_path):
    """A function that runs stage 1 on ``photos``; returns its summary and the lines that it said."""

    def run(out="cache", **options):
        given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "batch_size": 4}
        progress = Counted()
        options = FeatureOptions(**{**given, **options})
        summary = cache_features(photos, tmp_path / out, options, progress=progress)
        return summary, progress.notes

    return run


@pytest.fixture(scope="module")
def begun(drawn_photos, teacher_dir, tmp_path_factory):
    """A folder with photos without texts of their classes, and their cache; to be copied."""
    root = tmp_path_factory.mktemp("begun")
    texts = shutil.ignore_patterns("*.txt")
    shutil.copytree(drawn_photos, root / "photos", ignore=texts)
    given = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0, "batch_size": 4}
    cache_features(root / "photos", root / "cache", FeatureOptions(**given))
    return root


@pytest.fixture
def unlabelled(photos):
    """The photos without texts of their classes, so that a class may come and go."""
    for name in ("label2text.txt", "chatgpt.txt"):
        (photos / name).unlink()
    return photos


def add_images(photos: Path, write_jpeg) -> None:
    for name in ("apple/new.jpg", "cherry/new.jpg"):
        write_jpeg(photos / "train" / name)


def remove_images(photos: Path, write_jpeg) -> None:
    for name in ("apple/train_0.jpg", "cherry/train_7.jpg"):
        (photos / "train" / name).unlink()


def replace_images(photos: Path, write_jpeg) -> None:
    write_jpeg(photos / "train" / "apple" / "train_3.jpg")


def add_class(photos: Path, write_jpeg) -> None:
    write_jpeg(photos / "train" / "avocado" / "a.jpg")


def remove_class(photos: Path, write_jpeg) -> None:
    shutil.rmtree(photos / "train" / "banana")
    shutil.rmtree(photos / "val_on_train" / "banana")


def rename_class(photos: Path, write_jpeg) -> None:
    (photos / "val" / "plum").rename(photos / "val" / "prune")


def remove_half(photos: Path, write_jpeg) -> None:
    for path in sorted(photos.rglob("*.jpg"))[::2]:
        path.unlink()


def remove_split(photos: Path, write_jpeg) -> None:
    shutil.rmtree(photos / "val_on_train")


def touch_all(photos: Path, write_jpeg) -> None:
    for path in photos.rglob("*.jpg"):
        os.utime(path, (1, 1))


def add_and_remove(photos: Path, write_jpeg) -> None:
    add_images(photos, write_jpeg), remove_images(photos, write_jpeg), add_class(photos, write_jpeg)


@pytest.mark.parametrize(
    ("change", "embedded", "line"),
    [
        (add_images, 2, "2 images added; 2 of 41 rows are to be embedded"),
        (remove_images, 0, "2 images removed; 0 of 37 rows are to be embedded"),
        (replace_images, 1, "1 image replaced; 1 of 39 rows are to be embedded"),
        (add_class, 1, "1 image added, classes added: avocado; 1 of 40 rows are to be embedded"),
        (remove_class, 0, "11 images removed, classes removed: banana; 0 of 28 rows are to be embedded"),
        (
            rename_class,
            3,
            "3 images added, 3 removed, classes added: prune, classes removed: plum; 3 of 39 rows are to be embedded",
        ),
        (remove_half, 0, "20 images removed; 0 of 19 rows are to be embedded"),
        (remove_split, 0, "9 images removed, splits removed: id_test; 0 of 30 rows are to be embedded"),
        (touch_all, 0, None),
        (
            add_and_remove,
            3,
            "3 images added, 2 removed, classes added: avocado; 3 of 40 rows are to be embedded",
        ),
    ],
)
def test_only_what_is_new_is_embedded_and_the_cache_is_that_of_the_data_now(
    build, begun, photos, tmp_path, write_jpeg, change, embedded, line
):
    shutil.rmtree(photos)
    shutil.copytree(begun, tmp_path, dirs_exist_ok=True)  # with the times of photos, which rows know
    change(photos, write_jpeg)
    summary, notes = build()
    assert summary.new_rows == embedded
    assert notes == ([f"photos changed: {line}"] if line else [])
    build("fresh")
    assert rows_of(tmp_path / "cache") == rows_of(tmp_path / "fresh")
    grown, fresh = (EmbeddingCache.open(tmp_path / name) for name in ("cache", "fresh"))
    assert grown.manifest.splits == fresh.manifest.splits
    for split in fresh.split_names:
        assert grown.split(split).digests == fresh.split(split).digests
    assert all(not check.problem for check in verify_cache(grown.path))
    again, notes = build()
    assert (again.new_rows, notes) == (0, [])


def test_what_comes_back_is_seen_again_and_not_embedded(build, unlabelled, tmp_path):
    build()
    whole = rows_of(tmp_path / "cache")
    shutil.move(unlabelled / "val_on_train", tmp_path / "aside")
    (unlabelled / "train" / "apple" / "train_0.jpg").rename(tmp_path / "apple.jpg")
    assert build()[0].removed_rows == 10
    shutil.move(tmp_path / "aside", unlabelled / "val_on_train")
    back = unlabelled / "train" / "apple" / "train_0.jpg"
    shutil.copyfile(tmp_path / "apple.jpg", back)  # of another time: its content is compared
    summary, notes = build()
    assert (summary.new_rows, summary.restored_rows) == (0, 10)
    assert notes == [
        "photos changed: 10 images back again, splits added: id_test; 0 of 39 rows are to be embedded"
    ]
    assert rows_of(tmp_path / "cache") == whole


def test_an_image_that_is_replaced_and_put_back_is_embedded_once(build, photos, tmp_path, write_jpeg):
    build()
    whole, image = rows_of(tmp_path / "cache"), photos / "train" / "apple" / "train_3.jpg"
    before = image.read_bytes()
    write_jpeg(image)
    assert build()[0].replaced_rows == 1
    image.write_bytes(before)
    summary, _ = build()
    assert (summary.new_rows, summary.replaced_rows, summary.restored_rows) == (0, 1, 1)
    assert rows_of(tmp_path / "cache") == whole


def test_another_row_of_a_key_is_not_taken_for_what_a_touched_file_held(build, photos, tmp_path, write_jpeg):
    build()
    image = photos / "train" / "apple" / "train_3.jpg"
    before = image.read_bytes()
    os.utime(image, (1, 1))
    build()
    write_jpeg(image)
    build()
    image.write_bytes(before)
    os.utime(image, (1, 1))
    assert build()[0].restored_rows == 1
    build("fresh")
    assert rows_of(tmp_path / "cache") == rows_of(tmp_path / "fresh")


def test_a_touched_folder_is_read_once(build, unlabelled, write_jpeg):
    build()
    touch_all(unlabelled, write_jpeg)
    build()
    write_jpeg(unlabelled / "train" / "apple" / "new.jpg")  # so that the split is listed again
    image = unlabelled / "train" / "apple" / "train_3.jpg"
    image.write_bytes(bytes(image.stat().st_size))  # nobody can see that but who reads it
    os.utime(image, (1, 1))
    summary, notes = build()
    assert (summary.new_rows, summary.replaced_rows, summary.skipped) == (1, 0, {})
    assert notes == ["photos changed: 1 image added; 1 of 40 rows are to be embedded"]


def test_classes_renamed_in_label2text_embed_texts_and_no_image(build, photos, tmp_path):
    build()
    rows = rows_of(tmp_path / "cache")
    names = photos / "label2text.txt"
    names.write_text(names.read_text().replace("apple 1 apple", "apple 1 red_apple"))
    (photos / "chatgpt.txt").unlink()
    summary, _ = build()
    assert summary.new_rows == 0
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert "a photo of red apple" in cache.text_bank("labels").texts
    assert rows_of(tmp_path / "cache") == rows


def test_images_and_texts_that_change_together_are_one_line(build, photos, write_jpeg):
    (photos / "chatgpt.txt").unlink()
    build()
    add_images(photos, write_jpeg)
    names = photos / "label2text.txt"
    names.write_text(names.read_text().replace("apple 1 apple", "apple 1 red_apple"))
    assert build()[1] == [
        "photos changed: 2 images added, texts changed: labels (1 of 5 classes); 2 of 41 rows are to be embedded"
    ]
    # A class folder with another name, in label2text too, is another class, and no text of a class changed.
    rename_class(photos, write_jpeg)
    names.write_text(names.read_text().replace("plum ", "prune "))
    assert build()[1] == [
        "photos changed: 3 images added, 3 removed, classes added: prune, classes removed: plum; "
        "3 of 41 rows are to be embedded"
    ]
    assert build()[1] == []


def test_a_split_that_comes_later_is_added(build, unlabelled, tmp_path):
    shutil.move(unlabelled / "val_on_train", tmp_path / "aside")
    build()
    shutil.move(tmp_path / "aside", unlabelled / "val_on_train")
    summary, notes = build()
    assert summary.new_rows == 9
    assert notes == ["photos changed: 9 images added, splits added: id_test; 9 of 39 rows are to be embedded"]


def test_an_unreadable_image_is_tried_again_when_it_changes_and_forgotten_when_it_is_gone(
    build, unlabelled, tmp_path, write_jpeg
):
    bad = unlabelled / "train" / "apple" / "bad.jpg"
    bad.write_bytes(b"no picture")
    assert list(build()[0].skipped) == ["train/apple/bad.jpg"]
    assert list(build()[0].skipped) == ["train/apple/bad.jpg"]
    write_jpeg(unlabelled / "train" / "apple" / "new.jpg")
    summary, notes = build()
    assert (summary.new_rows, list(summary.skipped)) == (1, ["train/apple/bad.jpg"])
    assert notes == ["photos changed: 1 image added; 1 of 40 rows are to be embedded"]  # it is not tried
    write_jpeg(bad)
    summary, _ = build()
    assert (summary.new_rows, summary.skipped) == (1, {})
    bad.write_bytes(b"no picture again")
    assert build()[0].replaced_rows == 1
    bad.unlink()
    assert build()[0].skipped == {}
    assert Journal.load(tmp_path / "cache").skipped.get("train", {}) == {}


def test_a_split_that_did_not_change_is_not_listed(build, photos, tmp_path, write_jpeg):
    build()
    write_jpeg(photos / "train" / "apple" / "new.jpg")
    index = tmp_path / "cache" / "index"
    before = {path.name: path.stat().st_mtime_ns for path in index.iterdir()}
    build()
    after = {path.name: path.stat().st_mtime_ns for path in index.iterdir()}
    same = {name for name in before if before[name] == after[name]}
    assert same == {"id_test.h5", "id_test.chunks.json", "ood_test.h5", "ood_test.chunks.json"}
