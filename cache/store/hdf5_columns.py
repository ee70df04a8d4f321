"""Columns in HDF5: contiguous and uncompressed, so that they can be memory-mapped; plain h5py reads them.

A column is a dataset. Byte strings of different lengths, texts among them, lie one after the other in
``NAME``, uint8, and ``NAME_offset`` [n + 1] int64 says where each begins. Nothing here has a checksum: a
file's is in the journal.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import replacing
from cache.runtime.hdf5_safety import is_inner, open_hdf5
from cache.store.mapped_arrays import mapped_file

# A column begins where a page of memory does.
ALIGNMENT = 4096
OFFSET = "_offset"
# Kinds of dtype that a column may have.
KINDS = "biuf"


@dataclass(frozen=True, slots=True)
class Blobs:
    """Byte strings of any length, to be written as one column."""

    items: Sequence[bytes]


@dataclass(frozen=True, slots=True)
class Blocks:
    """Rows [n, ...] to be written a block at a time, as (row numbers, their values); the others are zeros."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    blocks: Iterable[tuple[NDArray[np.int64], Sequence[NDArray[Any]]]]


Column = NDArray[Any] | Blobs | Blocks
# The kinds of dtype and the numbers of dimensions that a dataset may have; or that it is of byte strings.
Form = tuple[str, tuple[int, ...]]
BLOBS: Form = ("blobs", ())
Forms = Mapping[str, Form]
# Byte strings are joined so many bytes at a time.
JOINED_AT_ONCE = 2**26


def texts(items: Sequence[str]) -> Blobs:
    """Return texts as a column of UTF-8; names of files may be none."""
    return Blobs([item.encode("utf-8", "surrogateescape") for item in items])


def write_columns(path: Path, columns: Mapping[str, Column]) -> None:
    """Write a file of columns, whole or not at all; UserError where it cannot be written."""
    # Columns begin at pages of memory.
    pages = {"alignment_threshold": 1024, "alignment_interval": ALIGNMENT}
    with replacing(path) as temporary, h5py.File(temporary, "w", locking=False, **pages) as file:
        for name, values in columns.items():
            if isinstance(values, Blobs):
                _write_blobs(file, name, values)
            elif isinstance(values, Blocks):
                column = file.create_dataset(name, shape=values.shape, dtype=values.dtype)
                for rows, block in values.blocks:
                    column[_selection(rows)] = block
            else:
                file.create_dataset(name, data=np.ascontiguousarray(values))


def _selection(rows: NDArray[np.int64]) -> Any:
    """Return rising rows as HDF5 writes them faster: one after the other as a slice."""
    whole = len(rows) > 0 and int(rows[-1]) - int(rows[0]) + 1 == len(rows)
    return slice(int(rows[0]), int(rows[-1]) + 1) if whole else rows


def _write_blobs(file: h5py.File, name: str, blobs: Blobs) -> None:
    lengths = np.fromiter(map(len, blobs.items), np.int64, len(blobs.items))
    offset = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    file.create_dataset(name + OFFSET, data=offset)
    column = file.create_dataset(name, shape=(int(offset[-1]),), dtype=np.uint8)
    start = 0
    while start < len(lengths):
        end = max(start + 1, int(np.searchsorted(offset, offset[start] + JOINED_AT_ONCE, side="right")) - 1)
        joined = np.frombuffer(b"".join(blobs.items[start:end]), dtype=np.uint8)
        if len(joined):
            column[offset[start] : offset[end]] = joined
        start = end


class MappedBlobs:
    """Byte strings of a file, mapped: ``blobs[i]`` are the bytes of one, ``len`` how many there are.

    With an integer array there is an array of objects, uint8 arrays.
    """

    dtype = np.dtype(object)

    def __init__(self, columns: Mapping[str, NDArray[Any]], name: str) -> None:
        """Of mapped columns, in which they lie; ValueError where their offsets are none."""
        self._joined = columns[name]
        self._offset = checked_offset(columns[name + OFFSET], len(self._joined), name)
        self.shape = (len(self._offset) - 1,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Any) -> Any:
        if np.ndim(index) == 0:
            return self._joined[self._offset[index] : self._offset[index + 1]].tobytes()
        blobs = np.empty(len(index), dtype=object)
        for i, row in enumerate(index):
            blobs[i] = np.array(self._joined[self._offset[row] : self._offset[row + 1]])
        return blobs

    def texts(self) -> list[str]:
        """Return all of them, which are UTF-8."""
        joined, offset = self._joined.tobytes(), self._offset.tolist()
        return [
            joined[start:end].decode("utf-8", "surrogateescape") for start, end in itertools.pairwise(offset)
        ]


def map_columns(path: Path, wanted: Forms) -> dict[str, Any]:
    """Map columns of a file, read-only: arrays, and :class:`MappedBlobs` of those that are of byte strings.

    They survive a fork and hold no file handle.

    Raises
    ------
    ValueError
        If a column is of another type or shape, or lies elsewhere than in the file.
    KeyError
        If there is none.
    """
    blobs = [name for name, form in wanted.items() if form == BLOBS]
    forms = dict(wanted)
    for name in blobs:
        forms |= in_file(name)
    mapped: dict[str, Any] = _map(path, forms)
    return {name: MappedBlobs(mapped, name) if name in blobs else mapped[name] for name in wanted}


def in_file(name: str) -> dict[str, Form]:
    """Return the datasets that byte strings are in a file."""
    return {name: ("u", (1,)), name + OFFSET: ("i", (1,))}


def _map(path: Path, wanted: Forms) -> dict[str, NDArray[Any]]:
    with open_hdf5(path) as file:
        places = {name: _place_of(file, name, *form) for name, form in wanted.items()}
        mapped = {
            name: np.asarray(h5py.Dataset(place.column)[...])
            for name, place in places.items()
            if place.offset is None or not place.bytes
        }
    raw = mapped_file(path) if len(mapped) < len(places) else None
    for name, place in places.items():
        if name not in mapped and place.offset is not None:
            mapped[name] = np.ndarray(place.shape, dtype=place.dtype, buffer=raw, offset=place.offset)
            mapped[name].flags.writeable = False
    return mapped


def checked_offset(offset: NDArray[np.int64], total: int, name: str) -> NDArray[np.int64]:
    """Return offsets that divide so many bytes; ValueError where they do not."""
    if not len(offset) or offset[0] != 0 or offset[-1] != total or (np.diff(offset) < 0).any():
        raise ValueError(f"{name}{OFFSET} does not divide {name}")
    return offset


@dataclass(frozen=True, slots=True)
class _Place:
    """Where a column lies in its file; no ``offset`` where its numbers are in its header."""

    column: h5py.h5d.DatasetID
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    offset: int | None

    @property
    def bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _place_of(file: h5py.File, name: str, kinds: str, ndim: tuple[int, ...]) -> _Place:
    """Return where a dataset of that form lies whole in its own file; raises as :func:`map_columns`.

    It is asked of HDF5 itself: an ``h5py.Dataset`` asks anew for each of its attributes, and a cache is
    opened by asking for ten columns of every row group.
    """
    if not is_inner(file, name):
        raise KeyError(f"there is no column {name}")
    column = h5py.h5o.open(file.id, name.encode())
    if not isinstance(column, h5py.h5d.DatasetID):
        raise ValueError(f"{name} is not a plain column")
    try:
        dtype = np.dtype(column.dtype)
    except TypeError as error:  # h5py's for a type of HDF5 that numpy has not
        raise ValueError(f"{name} is of no type of numpy's") from error
    made, space = column.get_create_plist(), column.get_space()
    # A compressed one may be larger than any memory, and one of nothing has no shape.
    plain = made.get_layout() in (h5py.h5d.CONTIGUOUS, h5py.h5d.COMPACT) and not made.get_external_count()
    if not plain or space.get_simple_extent_type() == h5py.h5s.NULL:
        raise ValueError(f"{name} is not a plain column")
    shape = space.get_simple_extent_dims()
    if dtype.kind not in kinds or not dtype.isnative or len(shape) not in ndim:
        raise ValueError(f"{name} is {dtype} of {len(shape)} dimensions")
    place = _Place(column, dtype, shape, column.get_offset())
    if (place.offset or 0) + place.bytes > file.id.get_filesize():
        raise ValueError(f"{name} is longer than the file")
    return place
