"""What is read of a tar of rows: samples one after the other from anywhere in it, and columns, mapped.

Nothing in a tar is trusted: its index, headers, tables and arrays are checked, and nothing is executed.
"""

from __future__ import annotations

import io
import json
import math
import tokenize
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from cache.sources.decoding import ENDINGS
from cache.store.journal import RowGroup
from cache.store.journal_lines import IMAGES, SAMPLES, FileLine
from cache.store.mapped_arrays import mapped_file
from cache.store.read_errors import reading

# What columns are called in a tar, where that is not their own name.
_MEMBERS = {IMAGES: "embedding"}
# Of numpy's arrays as it writes them: 128 bytes for shapes of a few dimensions.
_HEADER = 128
# The header itself begins behind a magic string, the version and its length.
_HEADER_BEGINS = 10
_PICTURES = frozenset(ending.removeprefix(".") for ending in ENDINGS)


def member_of(column: str) -> str:
    """Return the ending that a column's rows have in a tar."""
    return f"{_MEMBERS.get(column, column)}.npy"


@dataclass(frozen=True, kw_only=True, slots=True)
class TarRow:
    """One sample of a tar: ``row`` is its number, ``picture`` the picture's file, ``arrays`` by column."""

    row: int
    key: str
    labels: tuple[str, ...]
    picture: bytes
    caption: str | None
    arrays: dict[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True)
class TarRows:
    """The tar of a row group; small, and picklable.

    ``columns`` are those in it, ``index_at`` is where the numbers of its index begin, ``removed`` the rows
    that are not seen any more. ``pictures``: it holds them.
    """

    path: Path
    bytes: int
    rows: int
    columns: tuple[str, ...]
    index_at: int
    removed: frozenset[int] = frozenset()
    pictures: bool = True

    @classmethod
    def of(cls, cache: Path, group: RowGroup, line: FileLine | None = None) -> TarRows:
        """Return the tar of a row group; UserError where its line is none of a tar."""
        line = line or group.lines[SAMPLES]
        path, about = cache / line.file, line.about
        with reading(path, what="the line of"):
            columns, index_at = about["columns"], about["index"]
            if not (isinstance(columns, list) and all(isinstance(name, str) for name in columns)):
                raise ValueError("it names no columns")
            if not isinstance(index_at, int) or not 0 <= index_at < line.bytes or line.rows != group.rows:
                raise ValueError("its index is not in it")
        return cls(
            path=path,
            bytes=line.bytes,
            rows=line.rows,
            columns=tuple(columns),
            index_at=index_at,
            removed=group.removed,
            pictures=about.get("pictures") is not False,
        )

    @cached_property
    def offsets(self) -> NDArray[np.int64]:
        """Where each sample, and its row of each column, begins: int64 [n + 1, 1 + columns].

        UserError where that is damaged.
        """
        shape = (self.rows + 1, 1 + len(self.columns))
        with reading(self.path, size=self.bytes, what="the tar"):
            with open(self.path, "rb") as file:
                file.seek(self.index_at)
                raw = file.read(_HEADER + math.prod(shape) * 8)
            offsets: NDArray[np.int64] = _array("the index", raw, kinds="i")
            if offsets.shape != shape or offsets.dtype != np.int64:
                raise ValueError(f"its index is {offsets.dtype} {offsets.shape}")
            begins = offsets[:, 0]
            if begins[0] != 0 or (np.diff(begins) <= 0).any() or begins[-1] > self.index_at:
                raise ValueError("its index does not divide it")
        return offsets

    def samples(
        self, start: int = 0, stop: int | None = None, *, columns: Collection[str] = (), pictures: bool = True
    ) -> Iterator[TarRow]:
        """Yield the samples ``start`` to ``stop`` that were not removed, with their rows of ``columns``.

        They are read one after the other, and none is kept.

        Raises
        ------
        UserError
            If the tar is damaged, or a sample lacks what is asked for.
        """
        stop = self.rows if stop is None else stop
        if start >= stop:
            return
        begin, end = int(self.offsets[start, 0]), int(self.offsets[stop, 0])
        row = start
        with reading(self.path, what="the tar"), open(self.path, "rb") as file:
            file.seek(begin)
            for raw in _raw_samples(_Section(file, end - begin), self.path, columns, pictures):
                if row >= stop:
                    break
                if row not in self.removed:
                    yield _parsed(raw, row, columns, pictures)
                row += 1
            if row != stop:
                raise ValueError(f"it ends at sample {row:,} of {self.rows:,}")

    def column(self, name: str) -> TarColumn:
        """Return the rows of a column, mapped; UserError where the tar has none, or is damaged."""
        with reading(self.path, what="the tar"):
            if name not in self.columns:
                raise ValueError(f"it has no {member_of(name)}")
            return TarColumn(mapped_file(self.path), self.offsets[:-1, 1 + self.columns.index(name)])


class TarColumn:
    """Rows [n, ...] of a column in a tar, read when asked for, one or an integer array of them."""

    def __init__(self, raw: NDArray[np.uint8], offset: NDArray[np.int64]) -> None:
        """Of a mapped tar, in which row i's file begins at ``offset[i]``; ValueError where that is no row."""
        first = int(offset[0])
        shape, self.dtype, at = _form("a row", raw[first : first + 2**10].tobytes(), "f")
        self.shape = (len(offset), *shape)
        self._bytes = np.arange(at + math.prod(shape) * self.dtype.itemsize)
        self._header = raw[first : first + at].copy()
        if offset.min() < 0 or int(offset.max()) + len(self._bytes) > len(raw):
            raise ValueError("a row lies outside of it")
        self._raw, self._offset = raw, offset

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        taken = self._raw[self._offset[rows][..., None] + self._bytes]
        at = len(self._header)
        if (taken[..., :at] != self._header).any():
            raise ValueError("rows of a tar differ in shape")
        numbers = np.ascontiguousarray(taken[..., at:]).view(self.dtype)
        return numbers.reshape(*np.shape(rows), *self.shape[1:])


def _array(name: str, raw: bytes, kinds: str = "f") -> NDArray[Any]:
    """Return an array that numpy saved, as it lies in ``raw``; ValueError where that is anything else."""
    # Not np.load: it makes room for whatever shape the header claims before it looks for the numbers.
    shape, dtype, at = _form(name, raw, kinds)
    if math.prod(shape) * dtype.itemsize != len(raw) - at:
        raise ValueError(f"{name} holds {dtype} of shape {shape} in {len(raw)} bytes")
    return np.frombuffer(raw, dtype=dtype, offset=at).reshape(shape)


def _form(name: str, raw: bytes, kinds: str) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape and dtype of a saved array, and where its numbers begin."""
    at = _HEADER_BEGINS + int.from_bytes(raw[_HEADER_BEGINS - 2 : _HEADER_BEGINS], "little")
    shape, dtype = _form_of(raw[:at])
    if dtype.kind not in kinds:
        raise ValueError(f"{name} holds {dtype} of shape {shape}")
    return shape, dtype, at


@lru_cache(maxsize=64)  # those of a column are all one, and a tenth of the time that a sample takes
def _form_of(header: bytes) -> tuple[tuple[int, ...], np.dtype[Any]]:
    buffer = io.BytesIO(header)
    version = np.lib.format.read_magic(buffer)
    try:
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(buffer)
    except (SyntaxError, TypeError, tokenize.TokenError) as error:  # a header is a Python literal
        raise ValueError("an array has no header of numpy's") from error
    if version != (1, 0) or fortran or not dtype.isnative or min(shape, default=0) < 0:
        raise ValueError(f"an array is {dtype} of shape {shape}, in a form that is not ours")
    return shape, dtype


class _Section:
    """The next ``left`` bytes of a file, as a stream of its own."""

    def __init__(self, file: BinaryIO, left: int) -> None:
        self._file, self._left = file, left

    def read(self, size: int = -1) -> bytes:
        raw = self._file.read(self._left if size < 0 else min(size, self._left))
        self._left -= len(raw)
        return raw


def _raw_samples(
    stream: _Section, path: Path, columns: Collection[str], pictures: bool
) -> Iterator[dict[str, Any]]:
    from webdataset import tariterators  # here, because it imports torch

    wanted = (".json", ".txt", *(f".{member_of(name)}" for name in columns))
    unwanted = (".cls", ".npy")

    def is_asked_for(name: str) -> bool:
        return name.endswith(wanted) or (pictures and not name.endswith(unwanted))

    files = tariterators.tar_file_expander([{"url": str(path), "stream": stream}], select_files=is_asked_for)
    yield from tariterators.group_by_keys(files)


def _parsed(raw: dict[str, Any], row: int, columns: Collection[str], pictures: bool) -> TarRow:
    table = json.loads(raw["json"])
    key, labels = (table.get("key"), table.get("labels")) if isinstance(table, dict) else (None, None)
    if not (
        isinstance(key, str) and isinstance(labels, list) and all(isinstance(name, str) for name in labels)
    ):
        raise ValueError(f"sample {row:,} has no key and labels")
    own_pictures = [raw[ending] for ending in raw.keys() & _PICTURES]
    if pictures and len(own_pictures) != 1:
        raise ValueError(f"sample {row:,} has {len(own_pictures)} pictures")
    return TarRow(
        row=row,
        key=key,
        labels=tuple(labels),
        picture=own_pictures[0] if pictures else b"",
        caption=raw["txt"].decode("utf-8", "surrogateescape") if "txt" in raw else None,
        arrays={name: _array(member_of(name), raw[member_of(name)]) for name in columns},
    )
