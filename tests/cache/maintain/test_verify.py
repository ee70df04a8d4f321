"""Flipped bytes: verify finds every one and names the rows, readers never take one for a number."""

from __future__ import annotations

import errno
import os
import random
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.caches import read_back
from helpers.whole_caches import assert_same, files_of, flip

from cache import EmbeddingCache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.teacher.text_tower import TextTower


def assert_one_line(error: UserError) -> None:
    assert "\n" not in str(error)
    assert "Fix: " in str(error)


def content(folder: Path) -> dict[str, np.ndarray]:
    cache = EmbeddingCache.open(folder)
    numbers = read_back(cache)
    numbers["captions"] = np.array(cache.split("train").captions)
    numbers["caption_embeddings"] = np.asarray(cache.split("train").caption_embeddings)
    tower = TextTower.load(folder, files=cache.manifest.text_tower)
    numbers["tower"] = tower.embed(tower.tokens(["a fruit"])).detach().numpy()
    return numbers


@pytest.mark.parametrize("flips_a_file", [1, pytest.param(6, marks=pytest.mark.long)])
@pytest.mark.parametrize("format", ["hdf5", "tar"])
def test_verify_finds_every_flipped_byte_and_readers_take_none_for_a_number(
    whole, tmp_path, format, flips_a_file
):
    rng = random.Random(format)
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    expected, clean = content(cache), files_of(cache)
    assert not any(check.problem for check in verify_cache(cache))
    for file, raw in clean.items():
        for _ in range(flips_a_file):
            flip(cache / file, at := rng.randrange(len(raw)), rng)
            try:
                damaged = [check for check in verify_cache(cache) if check.problem]
                assert [check.file for check in damaged] == [file], (file, at)
            except UserError as error:
                assert_one_line(error)
                assert file == "manifest.json"
            try:
                for name, numbers in content(cache).items():
                    assert_same(name, numbers, expected[name], where=f"{file}, {at}")
            except UserError as error:
                assert_one_line(error)
            shutil.rmtree(cache / "neighbours")  # a reader may have computed them anew
            shutil.copytree(whole / format / "neighbours", cache / "neighbours")
            (cache / file).write_bytes(raw)


@pytest.mark.parametrize(
    ("format", "column"),
    [
        ("hdf5", "image_embedding"),
        ("hdf5", "caption_embedding"),
        ("hdf5", "label"),
        ("hdf5", "key"),
        ("tar", ""),
    ],
)
def test_verify_names_the_rows_that_are_damaged(whole, tmp_path, format, column):
    cache = tmp_path / "cache"
    shutil.copytree(whole / format, cache)
    file = f"images/train-00001.{'h5' if format == 'hdf5' else 'tar'}"
    raw = bytearray((cache / file).read_bytes())
    keys = EmbeddingCache.open(cache).split("train").keys[10:20]
    if format == "hdf5":
        with h5py.File(cache / file) as shard:
            rows = shard[column]
            starts = [rows.id.get_offset() + row * rows.nbytes // len(rows) for row in (3, 7)]
    else:
        # The caption of the picture and an embedding lie within their rows' members.
        starts = [raw.index(f'"key": "{keys[row]}"'.encode()) + 9 for row in (3, 7)]
    for start in starts:
        raw[start] ^= 0x40
    (cache / file).write_bytes(raw)
    (bad,) = [check for check in verify_cache(cache) if check.problem]
    assert (bad.file, bad.damaged) == (file, (3, 7))
    assert "2 of 10 rows are damaged: 3" in bad.problem
    if column == "image_embedding":
        assert f"7 ({keys[7]})" in bad.problem


@pytest.mark.parametrize("count", [5, 6])
def test_verify_names_the_first_five_rows_and_counts_the_rest(whole, tmp_path, count):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "hdf5", cache)
    path = cache / "images" / "train-00001.h5"
    raw = bytearray(path.read_bytes())
    with h5py.File(path) as shard:
        column = shard["image_embedding"]
        for row in range(count):
            raw[column.id.get_offset() + row * column.nbytes // len(column)] ^= 0x40
    path.write_bytes(raw)
    (bad,) = [check for check in verify_cache(cache) if check.problem]
    assert f"{count} of 10 rows are damaged: 0 (" in bad.problem
    assert bad.problem.endswith("and 1 more" if count > 5 else ")")


def test_rows_behind_the_place_where_a_file_ends_too_soon_are_lost(whole, tmp_path):
    cache = tmp_path / "cache"
    shutil.copytree(whole / "tar", cache)
    keys = EmbeddingCache.open(cache).split("train").keys[10:20]
    path = cache / "images" / "train-00001.tar"
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.index(f'"key": "{keys[6]}"'.encode())])
    (bad,) = [check for check in verify_cache(cache) if check.problem]
    assert bad.damaged == (6, 7, 8, 9)


def test_no_text_in_an_hdf5_file_lies_in_a_heap_where_a_wrong_byte_would_stop_libhdf5(whole):
    files = sorted((whole / "hdf5").rglob("*.h5"))
    types = []

    def look(name: str, item: h5py.HLObject) -> None:
        kinds = [item.attrs.get_id(attribute).dtype for attribute in item.attrs]
        types.extend(kinds + ([item.dtype] if isinstance(item, h5py.Dataset) else []))

    for path in files:
        with h5py.File(path, "r") as file:
            look("/", file)
            file.visititems(look)
    assert {"S", "u", "f", "i"} <= {dtype.kind for dtype in types}
    assert not any(dtype.hasobject for dtype in types)


def test_a_disk_that_cannot_be_read_is_no_damage_and_repair_removes_nothing(cached, monkeypatch):
    def refuse(*args, **named):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    before = sorted(path.name for path in cached.path.rglob("*"))
    monkeypatch.setattr("cache.store.hdf5_shards.read_column", refuse)
    for command in (verify_cache, repair_cache):
        with pytest.raises(UserError, match="could not be read"):
            command(cached.path)
    assert sorted(path.name for path in cached.path.rglob("*")) == before
