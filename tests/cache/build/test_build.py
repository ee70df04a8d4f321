from __future__ import annotations

import json
import os
from dataclasses import replace

import h5py
import numpy as np
import pytest
import webdataset
from helpers.caches import rows_of

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.verify import verify_cache
from cache.runtime.errors import CacheMismatch, UserError
from cache.store import neighbours
from cache.store.manifest import Manifest
from cache.store.neighbours import nearest_texts
from cache.teacher.open_clip_model import load_teacher


@pytest.fixture
def build(teacher_dir, photos, tmp_path):
    """A function that runs stage 1 on ``photos`` and returns its summary."""

    def run(out="cache", **options):
        given = {
            "model": f"local-dir:{teacher_dir}",
            "device": "cpu",
            "workers": 0,
            "batch_size": 2,
        }
        return cache_features(photos, tmp_path / out, FeatureOptions(**{**given, **options}))

    return run


@pytest.mark.parametrize("format", ["hdf5", "webdataset"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_row_is_what_the_teacher_says_of_its_image(build, photos, tmp_path, teacher_dir, format, dtype):
    summary = build(format=format, dtype=dtype)
    assert summary.rows == summary.new_rows == 39
    cache, teacher = EmbeddingCache.open(tmp_path / "cache"), load_teacher(f"local-dir:{teacher_dir}")
    from cache.sources.image_folder import load_rgb

    for split, folder in (("train", "train"), ("id_test", "val_on_train"), ("ood_test", "val")):
        rows = cache.split(split)
        assert rows.embeddings.dtype == dtype
        for key, i in rows.position.items():
            expected = teacher.embed_images(teacher.transform(load_rgb(photos / folder / key))[None])[0]
            np.testing.assert_allclose(rows.embeddings[i], expected, rtol=2e-3, atol=2e-3)
            assert rows.class_names[rows.labels[i]] == key.split("/")[0]
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))


# webdataset leaves its stream for the collector to close.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_plain_h5py_and_plain_webdataset_read_the_shards(build, tmp_path):
    build("a"), build("b", format="webdataset")
    cache = EmbeddingCache.open(tmp_path / "a")
    with h5py.File(tmp_path / "a" / "images" / "train-00000.h5") as file:
        assert file["image_embedding"].chunks is None
        first = file["key"].asstr()[0]
        np.testing.assert_array_equal(file["image_embedding"][0], cache.split("train").embeddings[0])
    tar = str(tmp_path / "b" / "images" / "train-00000.tar")
    sample = list(webdataset.WebDataset(tar, shardshuffle=False).decode("pil"))[0]  # noqa: RUF015  to its end: closed
    assert sample["json"]["key"] == first
    assert sample["jpg"].size == (40, 40)
    np.testing.assert_array_equal(sample["embedding.npy"], cache.split("train").embeddings[0])


def test_running_again_embeds_nothing_and_new_images_become_new_shards(build, photos, tmp_path, write_jpeg):
    build()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "images").iterdir()}
    assert build().new_rows == 0
    write_jpeg(photos / "train" / "apple" / "a_new_one.jpg")
    assert build().new_rows == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    rows = EmbeddingCache.open(tmp_path / "cache").split("train")
    assert rows.keys == sorted(rows.keys)
    assert "apple/a_new_one.jpg" in rows.position


def test_a_touched_file_is_the_same_image(build, photos):
    build()
    os.utime(photos / "train" / "apple" / "train_0.jpg", (1, 1))
    assert build().new_rows == 0


def test_changed_and_removed_images_are_named_and_rebuilt_on_request(build, photos, tmp_path, write_jpeg):
    build()
    write_jpeg(photos / "train" / "apple" / "train_0.jpg")
    (photos / "train" / "apple" / "train_1.jpg").unlink()
    with pytest.raises(CacheMismatch, match="--rebuild") as error:
        build()
    assert "apple/train_0.jpg (changed)" in str(error.value)
    assert "apple/train_1.jpg (removed)" in str(error.value)
    build(rebuild=True), build("fresh")
    assert rows_of(tmp_path / "cache").keys() == rows_of(tmp_path / "fresh").keys()
    assert set(rows_of(tmp_path / "cache")["train"]) == set(rows_of(tmp_path / "fresh")["train"])
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))


def test_another_teacher_preprocessing_or_dtype_is_another_cache(build):
    build()
    for options in (
        {"preprocessing": "squash"},
        {"dtype": "float32"},
        {"precision": "bfloat16"},
        {"format": "webdataset"},
    ):
        with pytest.raises(CacheMismatch, match="another make"):
            build(**options)
    assert build(preprocessing="squash", rebuild=True).new_rows == 39


def test_a_new_class_folder_is_an_error_not_a_relabelling(build, photos, write_jpeg):
    build()
    write_jpeg(photos / "train" / "avocado" / "a.jpg")
    (photos / "label2text.txt").write_text((photos / "label2text.txt").read_text() + "avocado 6 avocado\n")
    (photos / "chatgpt.txt").write_text((photos / "chatgpt.txt").read_text() + "Green.\n")
    with pytest.raises(CacheMismatch, match="added: avocado"):
        build()
    assert build(rebuild=True).rows == 40


def test_unreadable_images_are_skipped_counted_and_named(build, photos, tmp_path):
    bad = photos / "train" / "banana" / "train_3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    (photos / "val" / "plum" / "text.png").write_text("hello")
    summary = build()
    assert set(summary.skipped) == {"train/banana/train_3.jpg", "ood_test/plum/text.png"}
    assert summary.rows == 38
    assert [s.key for s in Manifest.load(tmp_path / "cache").splits["train"].skipped] == [
        "banana/train_3.jpg"
    ]
    assert build().new_rows == 0
    with pytest.raises(UserError, match=r"train_3\.jpg cannot be read"):
        build("strict", strict=True)


def test_a_mended_image_is_embedded_by_the_next_run(build, photos, write_jpeg):
    bad = photos / "train" / "banana" / "train_3.jpg"
    bad.write_bytes(b"")
    build()
    write_jpeg(bad)
    summary = build()
    assert summary.new_rows == 1
    assert not summary.skipped


def test_text_banks_templates_and_files_are_kept(build, photos, tmp_path):
    extra = tmp_path / "styles.txt"
    extra.write_text("a drawing\na painting\n")
    build(templates=("a sketch of {}", "the {}"), text_files=(extra,))
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert cache.bank_names == ("labels", "descriptions", "templates", "styles")
    bank = cache.text_bank("templates")
    unit = bank.embeddings / np.linalg.norm(bank.embeddings, axis=1, keepdims=True)
    np.testing.assert_allclose(bank.class_texts(["banana"])[0], unit[2:4].mean(axis=0), rtol=1e-6)
    with pytest.raises(UserError, match="no classes, only free texts"):
        cache.text_bank("styles").class_texts(["banana"])
    with pytest.raises(UserError, match="did you mean 'labels'"):
        cache.text_bank("lables")


def test_captions_can_be_added_later_without_embedding_images_again(build, photos, tmp_path):
    build()
    plain = rows_of(tmp_path / "cache")
    captions = tmp_path / "captions.jsonl"
    captions.write_text(json.dumps({"key": "train/apple/train_0.jpg", "caption": "a red apple"}) + "\n")
    summary = build(captions=captions)
    assert summary.new_rows == 0
    assert summary.missing_captions == 38
    rows = EmbeddingCache.open(tmp_path / "cache").split("train")
    assert rows.captions[:2] == ["a red apple", "a photo"]
    assert rows.caption_embeddings.shape == rows.embeddings.shape
    assert rows_of(tmp_path / "cache") == plain


def test_neighbours_are_exact_and_follow_the_cache(build, tmp_path):
    build()
    cache = EmbeddingCache.open(tmp_path / "cache")
    rows, text = cache.split("train"), cache.text_bank("labels").class_texts(cache.split("train").class_names)
    nearest, similarity = cache.neighbours("train", "labels", 2)
    e = np.asarray(rows.embeddings, dtype=np.float64)
    cosine = (e / np.linalg.norm(e, axis=1, keepdims=True)) @ (
        text / np.linalg.norm(text, axis=1, keepdims=True)
    ).T
    np.testing.assert_allclose(similarity, -np.sort(-cosine, axis=1)[:, :2], rtol=1e-5)
    np.testing.assert_array_equal(nearest, np.argsort(-cosine, axis=1)[:, :2])
    stored = tmp_path / "cache" / "neighbours" / "train--labels.h5"
    stored.unlink()
    again = np.asarray(cache.neighbours("train", "labels", 99)[0])
    np.testing.assert_array_equal(again[:, :2], nearest)
    written = stored.stat().st_ino
    cache.neighbours("train", "labels", 3)  # all that there are: they are read, not computed anew
    assert stored.stat().st_ino == written


def test_neighbours_of_many_images_are_found_in_parts(monkeypatch):
    rng = np.random.default_rng(0)
    images, texts = (rng.normal(size=(count, 8)).astype(np.float32) for count in (11, 5))
    monkeypatch.setattr(neighbours, "ROWS_AT_ONCE", 4)
    nearest, similarity = neighbours.nearest_texts(images, texts, 3)
    a, b = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (images.astype(float), texts))
    np.testing.assert_array_equal(nearest, np.argsort(-(a @ b.T), axis=1)[:, :3])
    np.testing.assert_allclose(similarity, -np.sort(-(a @ b.T), axis=1)[:, :3], atol=1e-6)


def test_nearest_texts_clamps_k_and_takes_no_rows():
    assert nearest_texts(np.zeros((0, 4), "f4"), np.ones((3, 4), "f4"), 9)[0].shape == (0, 3)


def test_damage_is_found_by_verify_and_mended_by_the_same_command(build, tmp_path):
    build(), build("sound")
    shard = tmp_path / "cache" / "images" / "train-00001.h5"
    raw = bytearray(shard.read_bytes())
    raw[-20] ^= 255
    shard.write_bytes(raw)
    (tmp_path / "cache" / "texts" / "labels.h5").unlink()
    problems = {check.file: check.problem for check in verify_cache(tmp_path / "cache") if check.problem}
    assert set(problems) == {"images/train-00001.h5", "texts/labels.h5"}
    assert "checksum" in problems["images/train-00001.h5"]
    build()
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))
    assert rows_of(tmp_path / "cache") == rows_of(tmp_path / "sound")


def test_an_unfinished_cache_and_a_plain_folder_are_refused(build, tmp_path):
    build()
    replace(Manifest.load(tmp_path / "cache"), complete=False).save(tmp_path / "cache")
    with pytest.raises(UserError, match="not finished"):
        EmbeddingCache.open(tmp_path / "cache")
    (tmp_path / "other").mkdir()
    with pytest.raises(UserError, match="is not a cache"):
        EmbeddingCache.open(tmp_path / "other")
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    with pytest.raises(UserError, match="exists and is not a cache"):
        build("other")
