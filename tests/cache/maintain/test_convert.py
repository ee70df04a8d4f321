"""A cache in the other format: the same numbers by key, also after its source has become another."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import make_cache, write_image
from helpers.caches import builder
from helpers.whole_caches import files_of

from cache import EmbeddingCache
from cache.maintain.compact import compact_cache
from cache.maintain.convert import convert_cache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.verify import verify_cache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.data import open_data
from cache.store.journal import Journal
from cache.store.manifest import Manifest
from cache.store.tar_rows import TarRows


def content(cache):
    """Everything that a reader gets, by key."""
    opened = EmbeddingCache.open(cache, check=True)
    held = {}
    for name in opened.split_names:
        rows = opened.split(name)
        captions = rows.caption_embeddings
        for i, key in enumerate(rows.keys):
            more = (captions[i].tobytes(), rows.captions[i]) if captions is not None else ()
            label, image = rows.class_names[rows.labels[i]], rows.files.content[i].tobytes()
            held[name, key] = (rows.embeddings[i].tobytes(), label, image, *more)
        held[name] = rows.digests
    held |= {name: opened.text_bank(name).embeddings.tobytes() for name in opened.bank_names}
    return held


def assert_follows(source, out):
    assert content(out) == content(source)
    assert EmbeddingCache.open(out).fingerprint == EmbeddingCache.open(source).fingerprint
    assert not any(check.problem for check in verify_cache(out))


def to_tars(root, photos):
    return convert_cache(root / "cache", root / "tar", format="webdataset", folder=open_data([photos]))


@pytest.fixture
def cached_rows(tmp_path, photos):
    """A function that imports rows of all images of ``photos`` but some, into ``cache``."""

    def rows(without=(), changed=()):
        folder = open_data([photos])
        pairs = [
            (n, s.key) for n, source in folder.splits.items() for s in source.all() if s.key not in without
        ]
        seeds = [sum(key.encode()) + 1000 * (key in changed) for _, key in pairs]
        given = np.stack([np.random.default_rng(seed).normal(size=16) for seed in seeds]).astype("float32")
        import_embeddings(
            tmp_path / "cache",
            Imported(
                keys=[f"{split}/{key}" for split, key in pairs],
                embeddings=given,
                texts=[],
                folder=folder,
                caption_embeddings=given + 1,
                dtype="float32",
            ),
        )

    rows()
    return rows


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_a_cache_survives_a_round_trip_through_both_formats(tmp_path, photos, dtype):
    make_cache(tmp_path / "cache", photos, captions=True, dtype=dtype)
    to_tars(tmp_path, photos)
    assert_follows(tmp_path / "cache", tmp_path / "tar")
    convert_cache(tmp_path / "tar", tmp_path / "three", format="hdf5")
    assert_follows(tmp_path / "cache", tmp_path / "three")
    with pytest.raises(UserError, match="has the format hdf5 already"):
        convert_cache(tmp_path / "cache", tmp_path / "four", format="hdf5")


def test_names_with_dots_and_spaces_keep_their_keys_in_a_webdataset(tmp_path, photos, write_jpeg):
    for name in ("a.b.c.jpg", "a b%2E.jpg", "é ü.jpg", "__x__.jpg"):
        write_jpeg(photos / "train" / "apple" / name)
    make_cache(tmp_path / "cache", photos)
    to_tars(tmp_path, photos)
    assert_follows(tmp_path / "cache", tmp_path / "tar")


def test_a_conversion_without_data_has_no_pictures_and_with_it_has_them(tmp_path, photos):
    make_cache(tmp_path / "cache", photos)
    convert_cache(tmp_path / "cache", tmp_path / "bare", format="webdataset")
    assert_follows(tmp_path / "cache", tmp_path / "bare")
    to_tars(tmp_path, photos)
    for name, has in (("bare", False), ("tar", True)):
        group = Journal.load(tmp_path / name).groups("train")[0]
        tar = TarRows.of(tmp_path / name, group)
        assert tar.pictures is has
    for row in tar.samples():
        assert row.picture == (photos / "train" / row.key).read_bytes()
    compact_cache(tmp_path / "bare")
    assert_follows(tmp_path / "cache", tmp_path / "bare")


def test_a_conversion_has_a_manifest_before_its_first_group_and_is_continued(tmp_path, photos):
    make_cache(tmp_path / "cache", photos)
    missing = photos / "train" / "apple" / "train_0.jpg"
    picture = missing.read_bytes()
    missing.unlink()
    with pytest.raises(CacheMismatch, match="train_0"):
        to_tars(tmp_path, photos)
    assert not Manifest.load(tmp_path / "tar").complete
    write_image(missing, (1, 2, 3), np.random.default_rng(0))
    with pytest.raises(CacheMismatch, match=r"train_0.jpg is not the picture that its row was made from"):
        to_tars(tmp_path, photos)
    missing.write_bytes(picture)
    to_tars(tmp_path, photos)
    assert_follows(tmp_path / "cache", tmp_path / "tar")


@pytest.mark.parametrize("format", ["webdataset", "hdf5"])
def test_run_again_a_conversion_follows_its_source(tmp_path, photos, write_jpeg, cached_rows, format):
    source, out = tmp_path / "cache", tmp_path / "tar"

    def follow():
        to_tars(tmp_path, photos)
        if format == "hdf5":
            convert_cache(tmp_path / "tar", tmp_path / "back", format="hdf5")
            assert_follows(source, tmp_path / "back")
        assert_follows(source, out)
        return {file: (out / file).stat().st_mtime_ns for file in files_of(out) if file.endswith(".tar")}

    before = follow()
    assert follow() == before  # nothing to do
    write_jpeg(photos / "train" / "apple" / "new.jpg")
    write_jpeg(photos / "val" / "fig" / "new.jpg")
    cached_rows(without={"apple/train_1.jpg", "banana/train_2.jpg"}, changed={"cherry/train_3.jpg"})
    after = follow()
    assert before.items() <= after.items()
    assert len(after) == len(before) + 2
    compact_cache(source)
    joined = follow()
    assert joined == after  # by their keys the rows are the same
    compact_cache(out)
    assert_follows(source, out)
    follow()
    cached_rows()
    follow()


def test_a_cache_of_its_own_is_not_made_a_conversion(tmp_path, photos, teacher_dir):
    build = builder(photos, teacher_dir, tmp_path)
    build()
    own = build("own", format="webdataset")
    before = content(own.path)
    with pytest.raises(UserError, match="own is a cache that 'distill cache convert' has not made"):
        convert_cache(tmp_path / "cache", own.path, format="webdataset")
    assert content(own.path) == before


def test_captions_that_the_source_was_given_since_reach_a_conversion(tmp_path, photos, teacher_dir):
    build = builder(photos, teacher_dir, tmp_path)
    build()
    to_tars(tmp_path, photos)
    tars = {path: path.stat().st_mtime_ns for path in (tmp_path / "tar/tars").iterdir()}
    keys = [f"{path.parent.name}/{path.name}" for path in (photos / "train").rglob("*.jpg")]
    lines = [json.dumps({"key": key, "caption": f"a picture called {key}"}) for key in keys]
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    build(captions=tmp_path / "captions.jsonl")
    to_tars(tmp_path, photos)
    assert_follows(tmp_path / "cache", tmp_path / "tar")
    assert {path: path.stat().st_mtime_ns for path in tars} == tars  # no picture is written again
    compact_cache(tmp_path / "tar")
    assert_follows(tmp_path / "cache", tmp_path / "tar")
    cache = EmbeddingCache.open(tmp_path / "tar")
    for split in cache.split_names:
        captions = dict(zip(cache.split(split).keys, cache.split(split).captions, strict=True))
        for group in cache.journal.groups(split):
            rows = TarRows.of(cache.path, group).samples(pictures=False)
            assert all(row.caption == captions[row.key] for row in rows)


def test_columns_beside_the_rows_are_copied_and_brought_up_to_date(tmp_path, whole):
    import shutil

    shutil.copytree(whole / "hdf5", tmp_path / "cache")
    before = columns_of(tmp_path / "cache")
    assert {"crop_views", "pixels", "support_views"} <= {name for name, _ in before}
    to_tars(tmp_path, whole / "photos")
    assert columns_of(tmp_path / "tar") == before
    assert_follows(tmp_path / "cache", tmp_path / "tar")
    convert_cache(tmp_path / "tar", tmp_path / "back", format="hdf5")
    assert columns_of(tmp_path / "back") == before


def columns_of(path):
    """What the columns of the training images hold, by key."""
    cache = EmbeddingCache.open(path, check=True)
    rows, held = cache.split("train"), {}
    at = np.arange(len(rows))
    views, pixels = cache.crop_views("train"), cache.pixels("train", side=36)
    support = cache.support_views("train", list(rows.keys))
    for i, key in enumerate(rows.keys):
        held["crop_views", key] = views.embeddings(at[i : i + 1], at[:1] + 1).tobytes()
        held["pixels", key] = np.asarray(pixels.images(at[i : i + 1])).tobytes()
        held["support_views", key] = support[i].tobytes()
    nearest = cache.neighbours("train", "labels", 3)
    if nearest is not None:
        held |= {("nearest", key): nearest[0][i].tobytes() for i, key in enumerate(rows.keys)}
    return held
