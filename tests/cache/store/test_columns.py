"""Columns of a cache: what a reader refuses by name, and what is no damage."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.store import hdf5_columns, neighbours, shard_formats, text_banks
from cache.store import manifest as manifest_module
from cache.store.hdf5_columns import mapped_column, read_column, write_column
from cache.store.manifest import Manifest


def test_a_reader_refuses_a_flipped_row_by_its_number_and_reads_the_others(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    rows = EmbeddingCache.open(cache).split("train").embeddings
    path = cache / "images" / "train-00001.h5"
    with h5py.File(path) as shard:
        column = shard["image_embedding"]
        at = column.id.get_offset() + 4 * column.nbytes // len(column)
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    rows = EmbeddingCache.open(cache).split("train").embeddings
    assert rows[13].shape == (16,)
    with pytest.raises(
        UserError, match=r"row 4 of image_embedding of .*train-00001.h5 differs .* cache repair"
    ):
        rows[np.array([13, 14])]


def test_a_text_bank_that_differs_beside_its_rows_is_not_read(whole, tmp_path):
    shutil.copytree(whole / "hdf5", tmp_path / "cache")
    with open(tmp_path / "cache" / "texts" / "labels.h5", "ab") as bank:
        bank.write(b"x")
    with pytest.raises(UserError, match="its checksum is not the manifest's"):
        EmbeddingCache.open(tmp_path / "cache").text_bank("labels")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.__delitem__("label"), "no column label"),
        (
            lambda f: f.create_dataset("new", data=np.ones(24, dtype="float32")) and f.move("new", "label2"),
            None,
        ),
        (lambda f: replace_column(f, "label", np.ones(10, dtype="float32")), "label is float32"),
        (
            lambda f: replace_column(f, "image_embedding", np.ones((10, 3, 16), dtype="float16")),
            "3 dimensions",
        ),
        (lambda f: replace_column(f, "key", np.ones(10, dtype="int64")), "key is int64"),
        (lambda f: f.__delitem__("crc32"), "no column crc32"),
        (lambda f: replace_link(f, "label", h5py.ExternalLink("other.h5", "/label")), "no column label"),
        (lambda f: replace_link(f, "label", h5py.SoftLink("/file_bytes")), "no column label"),
        (
            lambda f: replace_link(f, "label", compressed(f)),
            "not a plain column",
        ),
        (lambda f: replace_column(f, "label", np.ones(4, dtype="int64")), "differ in length"),
        (
            lambda f: replace_column(f, "image_embedding", np.ones((10, 9), dtype="float16")),
            "the manifest says",
        ),
    ],
)
def test_columns_of_a_wrong_type_size_or_place_are_refused_by_name(whole, tmp_path, change, message):
    from dataclasses import replace

    from cache.runtime.atomic_files import sha256_of

    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    path = cache / "images" / "train-00000.h5"
    with h5py.File(path, "a") as file:
        change(file)
    manifest = Manifest.load(cache)
    shard = replace(manifest.splits["train"].shards[0], sha256=sha256_of(path), bytes=path.stat().st_size)
    manifest.with_shard("train", shard).save(cache)
    if message is None:
        assert len(EmbeddingCache.open(cache).split("train").keys) == 24
        return
    with pytest.raises(UserError, match=f"train-00000.h5 is damaged .*{message}"):
        EmbeddingCache.open(cache).split("train")


def replace_column(file: h5py.File, name: str, values: np.ndarray) -> None:
    """Put another column in the place of one, with the right checksums, as one who made it on purpose would."""
    del file[name], file[f"crc32/{name}"]
    write_column(file, name, values)


def compressed(file: h5py.File) -> h5py.Dataset:
    return file.create_dataset("compressed", data=np.ones(10, dtype="int64"), compression="gzip")


def replace_link(file: h5py.File, name: str, link: object) -> None:
    del file[name]
    file[name] = link


@pytest.mark.parametrize("bug", [TypeError, AttributeError])
@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_a_bug_of_ours_keeps_its_traceback(whole, monkeypatch, format, bug):
    def broken(*given: object, **named: object) -> None:
        raise bug("a bug of ours")

    cache = EmbeddingCache.open(whole / format)
    for module, name, read in (
        (shard_formats, "_are_labels", lambda: cache.split("train")),
        (hdf5_columns, "_map" if format == "hdf5" else "_bytes", lambda: cache.crop_views("train")),
        (text_banks, "read_strings", lambda: cache.text_bank("labels")),
        (neighbours, "mapped_column", lambda: cache.neighbours("train", "labels", 2)),
        (manifest_module, "value_of", lambda: EmbeddingCache.open(whole / format)),
    ):
        with monkeypatch.context() as context:
            context.setattr(module, name, broken)
            with pytest.raises(bug, match="a bug of ours"):
                read()


@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_a_full_memory_is_no_damaged_file(whole, monkeypatch, format):
    def full(*given: object, **named: object) -> None:
        raise MemoryError("Unable to allocate 7.28 TiB")

    cache = EmbeddingCache.open(whole / format)
    monkeypatch.setattr(np, "array", full)
    with pytest.raises(MemoryError):
        cache.split("train")


def test_a_column_that_claims_more_than_the_file_has_is_refused(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["label"] = np.arange(1000)
    raw = (tmp_path / "x.h5").read_bytes()
    (tmp_path / "x.h5").write_bytes(raw[:-4000])
    with pytest.raises((OSError, ValueError)), h5py.File(tmp_path / "x.h5") as file:
        read_column(file, "label", kinds="i")
    with pytest.raises(KeyError), h5py.File(tmp_path / "y.h5", "w") as file:
        mapped_column(tmp_path / "y.h5", file, "absent", kinds="f", ndim=(2,))
