"""When a column of a row group is what was asked for, by its line alone."""

from __future__ import annotations

from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers.row_groups import add_group

from cache.store.column_lines import is_current, lacking, left_out_of, made_from
from cache.store.hdf5_columns import BLOBS, Blobs, Blocks, map_columns, write_columns
from cache.store.journal import Journal
from cache.store.row_group import write_column

SETTINGS = {"views": 3, "scale": 0.08}


@pytest.fixture
def group(tmp_path):
    """A row group of three rows, the second removed, with a column of the others."""
    add_group(tmp_path, ["a/1", "a/2", "b/3"])
    group = replace(Journal.load(tmp_path).groups("train")[0], removed=frozenset({1}))
    line = write_column(
        tmp_path,
        group.name,
        "crop_views",
        {"box": np.zeros((3, 4))},
        rows=3,
        made_from=made_from(SETTINGS, group.keys, "these"),
        about={"of": "these", "left_out": [1]},
    )
    return replace(group, lines={**group.lines, "crop_views": line})


def test_a_column_is_current_by_its_settings_keys_and_what_else_it_is_of(group):
    assert is_current(group, "crop_views", SETTINGS)
    assert is_current(group, "crop_views", dict(reversed(SETTINGS.items())), of="these")
    assert not is_current(group, "crop_views", {**SETTINGS, "views": 4})
    assert not is_current(group, "crop_views", SETTINGS, of="others")
    assert not is_current(group, "pixels", SETTINGS)
    others = replace(group, lines={**group.lines, "keys": replace(group.keys, sha256="0" * 64)})
    assert not is_current(others, "crop_views", SETTINGS)


def test_a_column_lacks_what_came_back_since_and_not_what_went(group):
    assert is_current(replace(group, removed=frozenset({0, 1})), "crop_views", SETTINGS)
    back = replace(group, removed=frozenset())
    assert not is_current(back, "crop_views", SETTINGS)
    assert lacking([group, back], "crop_views", SETTINGS) == 3


@pytest.mark.parametrize("odd", ["1", [[1]], {"1": 1}, [None], 1])
def test_a_line_of_somebody_elses_that_says_nonsense_fits_no_group(group, odd):
    line = group.lines["crop_views"]
    told = replace(line, about={**line.about, "left_out": odd})
    assert left_out_of(told) == frozenset({-1})
    assert not is_current(replace(group, lines={**group.lines, "crop_views": told}), "crop_views", SETTINGS)


def test_rows_written_block_by_block_are_there_and_the_others_are_zeros(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(6, 2, 2)
    blocks = [(np.array([0, 2]), values[[0, 2]]), (np.array([5]), list(values[[5]]))]
    write_columns(
        tmp_path / "a.h5", {"pixels": Blocks(shape=(6, 2, 2), dtype=np.dtype(np.uint8), blocks=blocks)}
    )
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["pixels"].chunks is None
        np.testing.assert_array_equal(file["pixels"][[0, 2, 5]], values[[0, 2, 5]])
        assert not file["pixels"][[1, 3, 4]].any()


def test_byte_strings_joined_a_few_at_a_time_are_those_that_were_given(tmp_path, monkeypatch):
    items = [b"", b"abc", b"", b"d" * 50, b"ef", b""]
    whole, joined = tmp_path / "whole.h5", tmp_path / "joined.h5"
    write_columns(whole, {"jpeg": Blobs(items)})
    monkeypatch.setattr("cache.store.hdf5_columns.JOINED_AT_ONCE", 4)
    write_columns(joined, {"jpeg": Blobs(items)})
    for path in (whole, joined):
        blobs = map_columns(path, {"jpeg": BLOBS})["jpeg"]
        assert [blobs[i] for i in range(len(blobs))] == items
    write_columns(tmp_path / "none.h5", {"jpeg": Blobs([])})
    assert len(map_columns(tmp_path / "none.h5", {"jpeg": BLOBS})["jpeg"]) == 0
