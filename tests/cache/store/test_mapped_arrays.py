"""Rows of many arrays: what numpy would give of their concatenation."""

from __future__ import annotations

import os

import numpy as np
import pytest

from cache.store.mapped_arrays import MappedRows, mapped_file


@pytest.fixture(params=["contiguous", "strided", "one"])
def arrays(request):
    rng = np.random.default_rng(0)
    made = [rng.standard_normal((count, 3)).astype(np.float16) for count in (5, 1, 7)]
    if request.param == "strided":  # which one view cannot have
        return [np.repeat(array, 2, axis=0)[::2] for array in made]
    return made[:1] if request.param == "one" else made


@pytest.mark.parametrize("ordered", [False, True])
def test_rows_are_those_of_the_arrays_end_to_end(arrays, ordered):
    whole = np.concatenate(arrays)
    order = np.random.default_rng(1).permutation(len(whole))[:4] if ordered else None
    rows, expected = MappedRows(arrays, order), whole if order is None else whole[order]
    assert (rows.shape, len(rows), rows.dtype) == (expected.shape, len(expected), expected.dtype)
    for index in (0, -1, 3, np.int64(2)):
        assert np.array_equal(rows[index], expected[index])
    for many in (
        slice(1, 3),
        slice(None),
        slice(None, None, -2),
        np.array([3, 0, 0, 2]),
        np.array([], dtype=int),
    ):
        assert np.array_equal(rows[many], expected[many])
    assert np.array_equal(np.asarray(rows), expected)
    assert np.array_equal(rows[np.arange(len(expected)) % 2 == 0], expected[::2])


def test_a_width_cuts_rows(arrays):
    rows = MappedRows(arrays, width=2)
    assert rows.shape == (len(np.concatenate(arrays)), 2)
    assert np.array_equal(rows[np.array([1, 0])], np.concatenate(arrays)[[1, 0], :2])


def test_rows_below_can_have_any_shape():
    arrays = [np.arange(count * 6).reshape(count, 2, 3) + count for count in (2, 4)]
    assert np.array_equal(MappedRows(arrays)[np.array([5, 1])], np.concatenate(arrays)[[5, 1]])


def test_a_row_that_is_not_there_is_an_index_error(arrays):
    with pytest.raises(IndexError):
        MappedRows(arrays)[np.array([0, 99])]


def test_a_mapped_file_takes_no_handle_and_outlives_its_name(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 40)
    handles = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
    maps = [mapped_file(path) for _ in range(50)]
    if handles:
        assert len(os.listdir("/proc/self/fd")) == handles
    views = [array[3:9] for array in maps]
    del maps
    path.unlink()
    assert all(view.tolist() == [3, 4, 5, 6, 7, 8] for view in views)
    with pytest.raises(ValueError, match="read-only"):
        views[0][0] = 1
    with pytest.raises(FileNotFoundError):
        mapped_file(path)
