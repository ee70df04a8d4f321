"""Anything at all in the files of a cache: rows that keep their promise, or one line that says what is wrong."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from helpers.fuzz import (
    ANY_TEXT,
    FEW,
    FEWER,
    JSON,
    KEYS,
    value_or_line,
    with_anything_in_any_place,
    written,
)
from helpers.row_groups import TEACHER, WIDTH, add_group, group_keys, make_rows, row_of, save_index
from helpers.tar_caches import make_tar_cache
from hypothesis import example, given
from hypothesis import strategies as st

from cache import EmbeddingCache
from cache.sources.key_hashes import hashes_of
from cache.store.checksums import has_its_checksum, with_checksum
from cache.store.hdf5_columns import texts
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import FileLine
from cache.store.manifest import Manifest
from cache.store.row_group import GroupKeys, KeysFile, claim_group, read_keys, write_group
from cache.store.spec import CacheSpec
from cache.store.tar_rows import TarRows
from cache.store.text_banks import load_bank, make_bank, save_bank
from cache.store.webdataset import write_tar_group

TEXTS = st.lists(ANY_TEXT, min_size=5, max_size=5)
ODD_KEYS = ["a/b c.jpg", "a/\u202ertl.png", "é/e\u0301.jpg", "a/line\nbreak.jpg", f"x/{'y' * 200}.jpg"]
SAME_STEMS = ["a/b.jpg", "a/b.png", "a/b", "a/__b__.jpg", "a/.jpg"]


@contextmanager
def empty_cache(format: str = "hdf5") -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        spec = CacheSpec(teacher=TEACHER, format=format)
        Manifest(spec=spec, embed_dim=WIDTH, splits={"train": ("a",)}).save(Path(folder))
        yield Path(folder)


def captioned(keys: list[str], texts_of_keys: list[str]) -> dict[str, Any]:
    rows = np.stack([row_of(key) for key in keys])
    return {
        "image_embedding": {"embedding": rows},
        "caption_embedding": {"embedding": -rows, "caption": texts(texts_of_keys)},
    }


@FEWER
@given(KEYS, TEXTS)
@example(ODD_KEYS, ["", "\0", "a\0", "\u2028", "é"])
def test_row_groups_are_read_back_as_they_were_written(keys, texts_of_keys):
    with empty_cache() as cache:
        own = group_keys(keys)
        name = claim_group(cache, "train")
        JournalWriter(cache).add(
            *write_group(cache, name, own, captioned(keys, texts_of_keys[: len(keys)]), {"batch_size": 2})
        )
        line = Journal.load(cache).groups("train")[0].keys
        assert_same_keys(read_keys(cache, line), own)
        replace(Manifest.load(cache), complete=True).save(cache)
        rows = EmbeddingCache.open(cache).split("train")
        places = rows.find(keys)
        assert [rows.keys[i] for i in places.tolist()] == keys
        assert [rows.captions[i] for i in places.tolist()] == texts_of_keys[: len(keys)]
        np.testing.assert_array_equal(rows.embeddings[places], np.stack([row_of(key) for key in keys]))
        assert rows.digests == own.digests()


@FEWER
@given(KEYS, TEXTS)
@example(ODD_KEYS, ["", "\0", "a\0", "\u2028", "é"])
@example(SAME_STEMS, ["1", "2", "3", "4", "5"])
def test_tars_are_read_back_as_they_were_written(keys, texts_of_keys):
    with empty_cache("webdataset") as cache:
        own, rows = group_keys(keys), np.stack([row_of(key) for key in keys])
        lines = write_tar_group(
            cache,
            claim_group(cache, "train"),
            own,
            {"image_embedding": rows},
            None,
            captions=texts_of_keys[: len(keys)],
        )
        JournalWriter(cache).add(*lines)
        order = np.argsort(hashes_of(keys), kind="stable")
        assert_same_keys(read_keys(cache, lines[-1]), own.taken(order))
        tar = TarRows.of(cache, Journal.load(cache).groups("train")[0])
        read_back = list(tar.samples(columns=["image_embedding"], pictures=False))
        assert [sample.key for sample in read_back] == [keys[i] for i in order]
        assert [sample.labels for sample in read_back] == [own.labels[i] for i in order]
        assert [sample.caption for sample in read_back] == [texts_of_keys[i] for i in order]
        np.testing.assert_array_equal(
            np.stack([sample.arrays["image_embedding"] for sample in read_back]), rows[order]
        )
        np.testing.assert_array_equal(tar.column("image_embedding")[np.arange(len(keys))], rows[order])


def assert_same_keys(read_back: GroupKeys, own: GroupKeys) -> None:
    assert (read_back.split, list(read_back.keys)) == (own.split, list(own.keys))
    assert list(read_back.labels) == list(own.labels)
    for name in ("content", "bytes", "mtime_ns"):
        np.testing.assert_array_equal(getattr(read_back, name), getattr(own, name))


@FEW
@given(st.lists(ANY_TEXT, min_size=1, max_size=5))
def test_text_banks_are_read_back_as_they_were_written(texts_of_bank):
    with tempfile.TemporaryDirectory() as folder:
        bank = make_bank("x", texts_of_bank, [""] * len(texts_of_bank), np.ones((len(texts_of_bank), 3)))
        path = Path(folder) / "texts" / "x.h5"
        read_back = load_bank(path, "x", sha256=save_bank(Path(folder), bank, made_from="").sha256)
    assert read_back.texts == texts_of_bank


# What lies in a cache may be of anyone


@pytest.fixture(scope="module")
def hdf5_cache(tmp_path_factory) -> Path:
    """A cache of seven rows in two groups, to be changed in a copy."""
    path = tmp_path_factory.mktemp("hdf5") / "cache"
    make_rows(path, {"train": [["a/0.jpg", "a/1.jpg", "b/0.jpg", "c/0.jpg"], ["b/1.jpg", "c/1.jpg"]]})
    return path


@pytest.fixture(scope="module")
def tar_cache(tmp_path_factory) -> Path:
    """A cache in the format webdataset, of three captioned pictures in one tar."""
    root = tmp_path_factory.mktemp("tars")
    keys = ["a/0.png", "a/1.png", "b/0.png"]
    make_tar_cache(root / "cache", root / "photos", {"train": [keys]}, captioned=True)
    return root / "cache"


@contextmanager
def copy_of(cache: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(shutil.copytree(cache, Path(folder) / "cache"))


DTYPES = ("int8", "int32", "int64", "uint8", "uint64", "float16", "float64", "bool", ">i4", "S3", "O")
SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DATASETS = ("key", "key_offset", "key_hash", "class_name", "class_name_offset", "label", "label_offset")


@FEW
@given(
    st.sampled_from([*DATASETS, "content", "bytes", "mtime_ns"]),
    st.sampled_from(DTYPES),
    st.one_of(SHAPES, st.none()),
    st.integers(-(2**62), 2**62),
)
@example("label", "int32", (4,), 7)
@example("key_offset", "int64", (5,), -1)
@example("label_offset", "int64", (5,), 2**62)
def test_keys_with_anything_in_any_dataset_are_read_or_refused(hdf5_cache, name, dtype, shape, number):
    with copy_of(hdf5_cache) as cache:
        line = Journal.load(cache).groups("train")[0].keys
        with h5py.File(cache / line.file, "r+") as file:
            shape = file[name].shape if shape is None else shape
            del file[name]
            file[name] = values_of(dtype, shape, number)
        line = FileLine.of(cache, line.file, rows=line.rows, about=line.about)
        whole = value_or_line(lambda: read_keys(cache, line))
        assert whole is None or len(whole) == line.rows
        mapped = value_or_line(lambda: all_of(KeysFile(cache, line)))
        assert mapped is None or len(mapped) == line.rows


def values_of(dtype: str, shape: tuple[int, ...], number: int) -> Any:
    if dtype == "O":
        values = np.full(shape, str(number), dtype=object)
        return values.astype(h5py.string_dtype())
    return np.full(shape, number % 200 if dtype in ("int8", "uint8", "float16", "S3") else number).astype(
        dtype
    )


def all_of(keys: KeysFile) -> list[tuple[str, int]]:
    return list(
        zip(
            map(keys.key, range(keys.rows)),
            keys.labels(["a", "b"], several=False).tolist(),
            keys.labels(["a", "b"], several=True).tolist(),
            keys.label_codes().tolist(),
            strict=True,
        )
    )


@FEWER
@given(
    st.sampled_from(["embedding", "caption", "caption_offset"]),
    st.sampled_from(DTYPES),
    SHAPES,
    st.integers(-(2**62), 2**62),
)
@example("embedding", "float16", (4, 3), 1)
@example("caption_offset", "int64", (5,), 2**62)
def test_a_column_with_anything_in_it_is_read_or_refused(name, dtype, shape, number):
    keys = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "c/0.jpg"]
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        make_rows(cache, {"train": []}, {"train": ("a", "b", "c")})
        group = add_group(cache, keys, caption_embedding=captioned(keys, list("abcd"))["caption_embedding"])
        save_index(cache)
        line = Journal.load(cache).groups("train")[0].lines["caption_embedding"]
        with h5py.File(cache / line.file, "r+") as file:
            del file[name]
            file[name] = values_of(dtype, shape, number)
        JournalWriter(cache).add(FileLine.of(cache, line.file, rows=line.rows, about=line.about))
        assert line.group == group
        rows = EmbeddingCache.open(cache).split("train")
        read = value_or_line(lambda: (rows.caption_embeddings[:], list(rows.captions)))
        assert read is None or (len(read[0]), len(read[1])) == (4, 4)


@FEW
@given(st.data())
def test_a_tar_with_changed_bytes_is_read_or_refused(tar_cache, data):
    group = Journal.load(tar_cache).groups("train")[0]
    with copy_of(tar_cache) as cache:
        path = cache / group.lines["samples"].file
        raw = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 8))):
            raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
        path.write_bytes(raw)
        assert_read_or_refused(TarRows.of(cache, group))


@FEW
@given(st.data())
@example(None)
def test_the_table_of_a_tars_sample_is_read_or_refused_whatever_is_in_it(tar_cache, data):
    group = Journal.load(tar_cache).groups("train")[0]
    with copy_of(tar_cache) as cache:
        path = cache / group.lines["samples"].file
        raw = path.read_bytes()
        at = raw.index(b'{"key"')
        length = raw.index(b"\0", at) - at
        table = json.loads(raw[at : at + length])
        table = [] if data is None else data.draw(st.one_of(JSON, st.just(table)))
        if data is not None and isinstance(table, dict) and table:
            with_anything_in_any_place(table, data)
        own = json.dumps(table).encode().ljust(length)
        if len(own) == length:
            path.write_bytes(raw[:at] + own + raw[at + length :])
            assert_read_or_refused(TarRows.of(cache, group))


def assert_read_or_refused(tar: TarRows) -> None:
    columns = ["image_embedding", "caption_embedding"]
    samples = value_or_line(lambda: list(tar.samples(columns=columns)))
    assert samples is None or [sample.row for sample in samples] == list(range(tar.rows))
    rows = value_or_line(lambda: tar.column("image_embedding"))
    assert rows is None or len(rows) == tar.rows


@FEW
@given(st.dictionaries(ANY_TEXT.filter(lambda t: t != "sha256"), JSON, max_size=4), st.data())
def test_a_text_with_its_checksum_is_its_value_and_nothing_else(value, data):
    text = with_checksum(value)
    assert has_its_checksum(text)
    assert {k: v for k, v in json.loads(text).items() if k != "sha256"} == value
    at = data.draw(st.integers(0, len(text) - 1))
    assert not has_its_checksum(text[:at] + chr(ord(text[at]) ^ 1) + text[at + 1 :])


@pytest.fixture(scope="module")
def manifest(tmp_path_factory) -> dict[str, Any]:
    """A manifest's value, to be changed."""
    from conftest import make_cache, make_photos

    root = tmp_path_factory.mktemp("manifest")
    path = make_cache(root / "cache", make_photos(root / "photos", train=2, test=2)).path / "manifest.json"
    value = json.loads(path.read_text())
    del value["sha256"]
    return value


@FEW
@given(st.data())
def test_a_manifest_with_anything_in_any_place_is_read_or_refused(manifest, data):
    value = json.loads(json.dumps(manifest))
    with_anything_in_any_place(value, data)
    with written(with_checksum(value).encode(), "manifest.json") as path:
        loaded = value_or_line(lambda: Manifest.load(path.parent))
        if loaded is not None:
            replace(loaded, complete=True).save(path.parent)
            assert Manifest.load(path.parent) == replace(loaded, complete=True)
