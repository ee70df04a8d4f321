"""Rows that lie in many files, read when they are asked for, and with no file handle for each."""

from __future__ import annotations

import ctypes
import mmap
import os
import weakref
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@cache
def _libc() -> Any:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = (
        ctypes.c_void_p,
        ctypes.c_size_t,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int,
        ctypes.c_int64,
    )
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    return libc


def mapped_file(path: Path) -> NDArray[np.uint8]:
    """Map a file, read-only: uint8, all of it.

    Python's own mmap keeps a file handle for every map (until 3.13, which can be told not to), and a cache of
    ten million rows has hundreds of files. The map lives as long as an array that looks at it, and survives a
    fork.

    Raises
    ------
    OSError
        If the file cannot be opened or mapped.
    """
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        size = os.fstat(handle).st_size
        if not size:
            return np.empty(0, dtype=np.uint8)
        address = _libc().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, handle, 0)
        if address in (None, ctypes.c_void_p(-1).value):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(path))
    finally:
        os.close(handle)
    pages = (ctypes.c_uint8 * size).from_address(address)
    weakref.finalize(pages, _libc().munmap, address, size).atexit = False
    # A memoryview of the pages, and so the pages, live as long as the array.
    array: NDArray[np.uint8] = np.frombuffer(memoryview(pages), dtype=np.uint8)
    array.flags.writeable = False
    return array


class MappedRows:
    """Rows [N, D], or of any shape after N, that lie in several arrays, read when asked for.

    Behaves as a read-only array in what training needs: ``len``, ``shape``, ``dtype``, one index, a slice, an
    integer array, and ``np.asarray`` for all of it. ``width`` cuts rows [N, D] to their beginning.
    """

    def __init__(
        self, arrays: Sequence[Any], order: NDArray[np.int64] | None = None, *, width: int | None = None
    ) -> None:
        """Join arrays; row i of the whole is row ``order[i]`` of their concatenation, or row i."""
        self._arrays, self._order, self._width = list(arrays), order, width
        self._starts = np.cumsum([0, *(len(array) for array in arrays)])
        below = arrays[0].shape[1:]
        count = int(self._starts[-1]) if order is None else len(order)
        self.shape = (count, *(below if width is None else (min(width, below[0]), *below[1:])))
        self.dtype = arrays[0].dtype
        self._view = _OneView.of(self._arrays) if len(self._arrays) > 1 else None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> NDArray[Any]:
        places = self._places(index)
        if np.ndim(places) == 0:
            array = int(np.searchsorted(self._starts, places, side="right")) - 1
            row = self._arrays[array][int(places - self._starts[array])]
            if isinstance(row, bytes):  # of which numpy makes another where it ends with zeros, or is empty
                return row  # type: ignore[return-value]
            row = np.asarray(row)
            return row if self._width is None else row[..., : self._width]
        rows = self._rows(places)
        return rows if self._width is None else rows[:, : self._width]

    def _places(self, index: Any) -> Any:
        """Return which rows of the joined arrays are asked for."""
        if self._order is not None:
            return self._order[index]
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        places = np.asarray(index)
        if places.dtype == bool:
            places = np.flatnonzero(places)
        if places.size and not -len(self) <= int(places.min()) <= int(places.max()) < len(self):
            raise IndexError(f"row {int(places.max())} of {len(self)}")
        return np.where(places < 0, places + len(self), places)

    def _rows(self, places: NDArray[np.int64]) -> NDArray[Any]:
        if len(self._arrays) == 1:
            return np.asarray(self._arrays[0][places])
        array_of = np.searchsorted(self._starts, places, side="right") - 1
        if self._view is not None:
            return self._view.rows(array_of, places - self._starts[array_of])
        rows = np.empty((len(places), *self._arrays[0].shape[1:]), dtype=self.dtype)
        for array in np.unique(array_of):
            chosen = array_of == array
            rows[chosen] = self._arrays[array][places[chosen] - self._starts[array]]
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype)


class _OneView:
    """Several arrays of rows, all anywhere in memory, seen as one: a gather costs the same however many.

    A loop over a hundred arrays for a batch of 256 rows costs ten times the copying. Here element i of one
    strided view is the row that begins i numbers behind the lowest address; only numbers that are the
    beginning of a row of an array are ever asked for.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        first = arrays[0]
        addresses = np.array([array.ctypes.data for array in arrays], dtype=np.int64)
        lowest, size = int(addresses.min()), first.dtype.itemsize
        self._arrays = arrays  # which keep the maps alive
        self._starts = (addresses - lowest) // size
        self._below = int(np.prod(first.shape[1:]))
        self._shape = first.shape[1:]
        furthest = max(int(start) + array.size for start, array in zip(self._starts, arrays, strict=True))
        self._numbers = np.lib.stride_tricks.as_strided(
            arrays[int(addresses.argmin())].reshape(-1)[:1],
            shape=(furthest - self._below + 1, self._below),
            strides=(size, size),
            writeable=False,
        )

    @classmethod
    def of(cls, arrays: Sequence[Any]) -> _OneView | None:
        """Return the view; None where the arrays are not plain ones of one kind."""
        first = arrays[0]
        plain = all(
            isinstance(array, np.ndarray)
            and array.flags.c_contiguous
            and (array.dtype, array.shape[1:]) == (first.dtype, first.shape[1:])
            and array.size
            and not array.dtype.hasobject
            for array in arrays
        )
        size = first.dtype.itemsize
        if not plain or any((array.ctypes.data - first.ctypes.data) % size for array in arrays):
            return None
        return cls(arrays)

    def rows(self, array_of: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return row ``rows[i]`` of array ``array_of[i]``, for every i; none may lie outside its array."""
        taken = self._numbers[self._starts[array_of] + rows * self._below]
        return taken.reshape(len(rows), *self._shape)
