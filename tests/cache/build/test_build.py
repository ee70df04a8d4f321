from __future__ import annotations

import json
import shutil
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
from cache.store.journal import Journal
from cache.store.manifest import Manifest
from cache.store.neighbours import nearest_texts
from cache.teacher.load import load_teacher


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
    from cache.sources.decoding import load_rgb

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
def test_plain_h5py_and_plain_webdataset_read_the_rows(build, tmp_path):
    build("a"), build("b", format="webdataset")
    cache = EmbeddingCache.open(tmp_path / "a")
    folder = tmp_path / "a" / "rows" / "train-00000"
    with h5py.File(folder / "keys.h5") as keys, h5py.File(folder / "image_embedding.h5") as rows:
        assert rows["embedding"].chunks is None
        start, end = keys["key_offset"][:2]
        first, embedding = keys["key"][start:end].tobytes().decode(), rows["embedding"][0]
    row = cache.split("train").position[first]
    np.testing.assert_array_equal(embedding, cache.split("train").embeddings[row])
    tar = str(tmp_path / "b" / "tars" / "train-00000.tar")
    sample = list(webdataset.WebDataset(tar, shardshuffle=False).decode("pil"))[0]  # noqa: RUF015  to its end: closed
    row = cache.split("train").position[sample["json"]["key"]]
    assert sample["jpg"].size == (40, 40)
    np.testing.assert_array_equal(sample["embedding.npy"], cache.split("train").embeddings[row])


def test_running_again_embeds_nothing_and_new_images_become_new_groups(build, photos, tmp_path, write_jpeg):
    build()
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache" / "rows").rglob("*.h5")}
    assert build().new_rows == 0
    write_jpeg(photos / "train" / "apple" / "a_new_one.jpg")
    assert build().new_rows == 1
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert "apple/a_new_one.jpg" in EmbeddingCache.open(tmp_path / "cache").split("train").position


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


def test_unreadable_images_are_skipped_counted_and_named(build, photos, tmp_path):
    bad = photos / "train" / "banana" / "train_3.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    (photos / "val" / "plum" / "text.png").write_text("hello")
    summary = build()
    assert set(summary.skipped) == {"train/banana/train_3.jpg", "ood_test/plum/text.png"}
    assert summary.rows == 38
    assert [*Journal.load(tmp_path / "cache").skipped["train"]] == ["banana/train_3.jpg"]
    assert build().new_rows == 0
    with pytest.raises(UserError, match=r"train_3\.jpg cannot be read"):
        build("strict", strict=True)
    # What an earlier run skipped is not read again, and none of those that strict is to stop at.
    with pytest.raises(UserError, match=r"train_3\.jpg could not be read .* by an earlier run .*and 1 more"):
        build(strict=True)
    assert build().rows == 38


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
    captions = dict(zip(rows.keys, rows.captions, strict=True))
    assert captions.pop("apple/train_0.jpg") == "a red apple"
    assert {*captions.values()} == {"a photo"}
    assert rows.caption_embeddings.shape == rows.embeddings.shape
    assert rows_of(tmp_path / "cache") == plain


def test_neighbours_are_exact_and_follow_the_cache(build, tmp_path):
    build(neighbours=2)
    cache = EmbeddingCache.open(tmp_path / "cache")
    rows, text = cache.split("train"), cache.text_bank("labels").class_texts(cache.split("train").class_names)
    nearest, similarity = cache.neighbours("train", "labels", 2)
    e = np.asarray(rows.embeddings, dtype=np.float64)
    cosine = (e / np.linalg.norm(e, axis=1, keepdims=True)) @ (
        text / np.linalg.norm(text, axis=1, keepdims=True)
    ).T
    np.testing.assert_allclose(similarity, -np.sort(-cosine, axis=1)[:, :2], rtol=1e-5)
    np.testing.assert_array_equal(nearest, np.argsort(-cosine, axis=1)[:, :2])


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


def test_a_file_that_is_lost_or_cut_is_made_again_by_the_same_command(build, tmp_path):
    build(), build("sound")
    (tmp_path / "cache" / "texts" / "labels.h5").unlink()
    for number, lost in enumerate(("keys.h5", "image_embedding.h5")):
        (tmp_path / "cache" / "rows" / f"train-{number:05d}" / lost).unlink()
    cut = tmp_path / "cache" / "rows" / "ood_test-00000" / "image_embedding.h5"
    cut.write_bytes(cut.read_bytes()[:-1])
    assert build().new_rows == 6 + 6 + 2
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))
    assert rows_of(tmp_path / "cache") == rows_of(tmp_path / "sound")


def test_an_index_that_is_lost_is_made_again(build, tmp_path):
    build()
    shutil.rmtree(tmp_path / "cache" / "index")
    assert build().new_rows == 0
    assert (tmp_path / "cache" / "index" / "train.h5").exists()
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))


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
