"""Columns of a cache: what a reader refuses by name, what is no damage, and what plain h5py reads."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers.row_groups import make_rows, row_of

from cache import EmbeddingCache
from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.store import hdf5_columns, row_group, text_banks
from cache.store import manifest as manifest_module
from cache.store.hdf5_columns import Blobs, Blocks, map_columns, write_columns
from cache.store.journal import Journal, JournalWriter

KEYS = ["a/0.jpg", "a/1.jpg", "b/0.jpg"]


@pytest.fixture
def cache(tmp_path):
    make_rows(tmp_path / "cache", {"train": [KEYS]})
    return tmp_path / "cache"


def test_plain_h5py_reads_keys_classes_and_rows(whole):
    """As the README says it."""
    with h5py.File(whole / "hdf5" / "rows" / "train-00000" / "keys.h5") as file:
        offset = file["key_offset"][:]
        raw = file["key"][:].tobytes()
        keys = [raw[start:end].decode() for start, end in itertools.pairwise(offset)]
        ends = file["class_name_offset"][:]
        names = file["class_name"][:].tobytes()
        classes = [names[start:end].decode() for start, end in itertools.pairwise(ends)]
        labels = [classes[label] for label in file["label"][:]]
    assert labels == [key.partition("/")[0] for key in keys]
    rows = EmbeddingCache.open(whole / "hdf5").split("train")
    expected = rows.embeddings[rows.find(keys)]
    with h5py.File(whole / "hdf5" / "rows" / "train-00000" / "image_embedding.h5") as file:
        np.testing.assert_array_equal(file["embedding"][:], expected)
    with h5py.File(whole / "hdf5" / "rows" / "train-00000" / "crop_views.h5") as file:
        assert {name: column.shape[0] for name, column in file.items()} == dict.fromkeys(file, len(keys))


def test_a_text_bank_that_differs_beside_its_rows_is_not_read(whole, tmp_path):
    shutil.copytree(whole / "hdf5", tmp_path / "cache")
    with open(tmp_path / "cache" / "texts" / "labels.h5", "ab") as bank:
        bank.write(b"x")
    with pytest.raises(UserError, match="its checksum is not the manifest's"):
        EmbeddingCache.open(tmp_path / "cache").text_bank("labels")


def replace_column(file: h5py.File, name: str, values: np.ndarray) -> None:
    del file[name]
    file[name] = values


def replace_link(file: h5py.File, name: str, link: object) -> None:
    del file[name]
    file[name] = link


def compressed(file: h5py.File) -> h5py.Dataset:
    return file.create_dataset("compressed", data=np.ones((3, 8), dtype="float16"), compression="gzip")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.__delitem__("embedding"), "no column embedding"),
        (lambda f: replace_column(f, "embedding", np.ones((3, 8), dtype="int16")), "embedding is int16"),
        (lambda f: replace_column(f, "embedding", np.ones((3, 3, 8), dtype="float16")), "3 dimensions"),
        (lambda f: replace_column(f, "embedding", np.ones((3, 8), dtype=">f2")), "embedding is >f2"),
        (lambda f: replace_link(f, "embedding", h5py.ExternalLink("other.h5", "/x")), "no column embedding"),
        (lambda f: replace_link(f, "embedding", h5py.SoftLink("/x")), "no column embedding"),
        (lambda f: replace_link(f, "embedding", compressed(f)), "not a plain column"),
        (lambda f: replace_column(f, "embedding", np.ones((4, 8), dtype="float16")), "4 rows of 3"),
        (lambda f: replace_column(f, "embedding", np.ones((3, 9), dtype="float16")), "the manifest says"),
        (lambda f: replace_column(f, "embedding", np.ones((3, 8), dtype="float32")), "the manifest says"),
    ],
)
def test_columns_of_a_wrong_type_size_or_place_are_refused_by_name(cache, change, message):
    line = Journal.load(cache).groups("train")[0].lines["image_embedding"]
    with h5py.File(cache / line.file, "a") as file:
        change(file)
    size = (cache / line.file).stat().st_size
    JournalWriter(cache).add(replace(line, sha256=sha256_of(cache / line.file), bytes=size))
    with pytest.raises(UserError, match=f"image_embedding.*{message}"):
        EmbeddingCache.open(cache, check=True).split("train").embeddings  # noqa: B018


@pytest.mark.parametrize("bug", [TypeError, AttributeError])
def test_a_bug_of_ours_keeps_its_traceback(whole, monkeypatch, bug):
    def broken(*given: object, **named: object) -> None:
        raise bug("a bug of ours")

    path = whole / "hdf5"
    for module, name, read in (
        (row_group, "_check", lambda: EmbeddingCache.open(path).split("train").files.content),
        (hdf5_columns, "mapped_file", lambda: EmbeddingCache.open(path).crop_views("train")),
        (text_banks, "map_columns", lambda: EmbeddingCache.open(path).text_bank("labels")),
        (manifest_module, "value_of", lambda: EmbeddingCache.open(path)),
    ):
        with monkeypatch.context() as context:
            context.setattr(module, name, broken)
            with pytest.raises(bug, match="a bug of ours"):
                read()


@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_a_full_memory_is_no_damaged_file(whole, monkeypatch, format):
    def full(*given: object, **named: object) -> None:
        raise MemoryError("Unable to allocate 7.28 TiB")

    rows = EmbeddingCache.open(whole / format).split("train").embeddings
    monkeypatch.setattr(np, "empty", full)
    monkeypatch.setattr(np, "arange", full)
    with pytest.raises(MemoryError):
        rows[np.zeros(3, dtype=np.int64)].copy()[np.empty(0, dtype=int)]


def test_a_column_that_claims_more_than_the_file_has_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["label"] = np.arange(1000)
    raw = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(raw[:-4000])
    with pytest.raises((OSError, ValueError)):
        map_columns(tmp_path / "x.h5", {"label": ("i", (1,))})
    with h5py.File(tmp_path / "y.h5", "w"):
        pass
    with pytest.raises(KeyError):
        map_columns(tmp_path / "y.h5", {"absent": ("f", (2,))})


def test_blocks_blobs_and_arrays_are_written_as_they_are_whatever_their_order(tmp_path):
    rows = np.stack([row_of(key) for key in KEYS])
    blocks = [(np.array([0, 2]), rows[[0, 2]]), (np.array([1]), rows[1:2])]
    write_columns(
        tmp_path / "x.h5",
        {
            "whole": rows,
            "blocks": Blocks(shape=(4, 8), dtype=rows.dtype, blocks=blocks),
            "blob": Blobs([b"", b"ab", b"\0c"]),
        },
    )
    with h5py.File(tmp_path / "x.h5") as file:
        np.testing.assert_array_equal(file["whole"][:], rows)
        np.testing.assert_array_equal(file["blocks"][:], np.concatenate([rows, np.zeros((1, 8))]))
        assert file["blob"][:].tobytes() == b"ab\0c"
        assert file["blob_offset"][:].tolist() == [0, 0, 2, 4]
        assert not any(column.chunks for column in file.values())
