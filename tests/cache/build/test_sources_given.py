"""What cache-features makes of the sources that it is given, by its command line."""

from __future__ import annotations

import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from helpers.caches import stage_1_words

import cli
from cache.reader import EmbeddingCache
from cache.sources.class_texts import MISSING_CAPTION


@pytest.fixture
def embed(tmp_path, teacher_dir):
    """A function that runs cache-features on sources, and gives what it said and the finished cache."""

    def run(first, *more, status=0):
        words = stage_1_words(
            first, tmp_path / "cache", teacher_dir, "--workers", 0, "--device", "cpu", *more
        )
        done = CliRunner().invoke(cli.main, words)
        assert done.exit_code == status, done.output
        return done.output, EmbeddingCache.open(tmp_path / "cache") if not status else None

    return run


def test_class_folders_are_train_and_a_rule_makes_tests_of_them(photos, embed):
    said, cache = embed(photos / "train")
    assert cache.split_names == ("train",)
    assert (
        "3 classes and no splits: all of it is train (--split 'id_test=0.2,ood_test=0.3 of classes'" in said
    )
    said, cache = embed(photos / "train", "--split", "id_test=0.3,ood_test=0.5 of classes")
    assert set(cache.split_names) == {"train", "id_test", "ood_test"}
    assert "of 3 classes are trained, 30% of their images are the ID test, " in said
    assert sum(len(cache.split(name)) for name in cache.split_names) == 24
    assert set(cache.class_names("train")).isdisjoint(cache.class_names("ood_test"))


def test_a_pool_beside_other_sources_has_rows_and_no_labels(photos, embed, tmp_path):
    shutil.move(photos / "val", tmp_path / "unsorted")
    said, cache = embed(photos, f"pool={tmp_path / 'unsorted'}")
    assert set(cache.split_names) == {"train", "id_test", "pool"}
    pool = cache.split("pool")
    assert pool.class_names == ()
    assert (pool.labels == -1).all()
    assert np.isfinite(np.asarray(pool.embeddings, dtype="float32")).all()
    assert f"pool {len(pool)}" in said


def test_a_flat_folder_is_a_pool_alone(photos, embed, tmp_path):
    shutil.copytree(photos / "train" / "apple", tmp_path / "flat")
    said, cache = embed(tmp_path / "flat")
    assert cache.split_names == ("pool",)
    assert cache.bank_names == ()
    assert "all of it is pool" in said


def test_several_sources_of_one_split_are_one(photos, embed, tmp_path):
    shutil.move(photos / "train" / "apple", tmp_path / "more" / "fruit" / "apple")
    _, cache = embed(f"train={photos / 'train'}", f"train={tmp_path / 'more/fruit'}")
    assert cache.class_names("train") == ("apple", "banana", "cherry")
    assert len(cache.split("train")) == 24


def test_two_sources_with_one_key_are_an_error_that_names_both(photos, embed):
    said, _ = embed(f"train={photos / 'train'}", f"train={photos / 'train'}", status=1)
    assert re.search(
        r"train has the key (\w+/train_\d.jpg) twice: (\S+/train/\1) and \2\. Fix: take one", said
    )


def test_class_depth_last_takes_the_folder_that_holds_the_picture(photos, embed, tmp_path):
    shutil.move(photos / "train", tmp_path / "deep" / "kitchen" / "fruit")
    _, cache = embed(f"train={tmp_path / 'deep'}", "--class-depth", "last")
    assert cache.class_names("train") == ("apple", "banana", "cherry")
    assert cache.split("train").keys[0].startswith("kitchen/fruit/")


def test_texts_beside_pictures_are_the_captions_column_and_follow_the_files(photos, embed):
    for path in sorted((photos / "train" / "apple").glob("*.jpg"))[:3]:
        path.with_suffix(".txt").write_text(f"an apple called {path.stem}")
    said, cache = embed(photos)
    rows = cache.split("train")
    captions = dict(zip(rows.keys, rows.captions, strict=True))
    assert captions["apple/train_0.jpg"] == "an apple called train_0"
    assert captions["banana/train_0.jpg"] == MISSING_CAPTION
    assert "what the samples bring: train 3 of 24" in said
    (photos / "train" / "apple" / "train_1.txt").write_text("another text")
    said, cache = embed(photos)
    rows = cache.split("train")
    assert dict(zip(rows.keys, rows.captions, strict=True))["apple/train_1.jpg"] == "another text"
    assert "24 (0 new)" in said or "(0 new)" in said


@pytest.mark.parametrize(
    ("more", "status", "message"),
    [
        (["--split", "half"], 2, "is not of the form 'id_test=0.2,ood_test=0.3 of classes'"),
        (["--class-depth", "0"], 2, "is not a number from 1 or 'last'"),
        (["--class-depth", "first"], 2, "is not a number from 1 or 'last'"),
        (["--max-pixels", "0"], 2, "--max-pixels"),
        (["--split", "id_test=0.1"], 1, "--split has nothing to split"),
        (["nowhere"], 1, "the data folder nowhere does not exist"),
        (["train="], 2, "'train=' names no source"),
        (["poool=."], 2, "poool=.: 'poool' is not a split. Fix: did you mean 'pool'?"),
        (["--label-column", "what"], 2, "--label-column is for lists, parquet and saved datasets: it does"),
        (["pyproject.toml"], 1, "pyproject.toml is a file of a kind that is no source of images"),
    ],
)
def test_wrong_sources_and_options_are_one_line(photos, embed, more, status, message):
    said, _ = embed(photos, *more, status=status)
    assert message in said
    assert len([line for line in said.splitlines() if "Error" in line]) == 1


def test_a_class_that_a_test_has_and_training_not_is_told(photos, embed):
    for path in sorted((photos / "train" / "apple").glob("*.jpg")):
        path.write_bytes(b"no picture")
    said, _ = embed(photos)
    assert "look at train: 1 classes of the ID test have no image in it (apple)" in said


def test_tests_without_anything_to_learn_from_are_refused(photos, embed):
    said, _ = embed(f"ood_test={photos / 'val'}", status=1)
    assert "has ood_test alone, and nothing to learn from" in said
