"""Columns of an HDF5 file with a checksum for every row: a flipped bit is found, and its row is named.

A column ``NAME`` is contiguous and uncompressed, so that it can be memory-mapped. Beside it is
``crc32/NAME``, the CRC-32 of every row's bytes, uint32 [n]: with it a row is checked when it is read. A
column that is read at once has that of the whole as its attribute ``crc32``. Plain h5py reads the columns
and need not know of either.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from cache.runtime.hdf5_safety import inner_dataset, is_inner, open_hdf5
from cache.store.mapped_arrays import CheckedBlobs, CheckedRows, row_sums
from cache.store.shard_rows import WrongRows

# HDF5's own limit for what lies in an object's header.
LONGEST_ATTRIBUTE = 2**16
SUMS, OFFSETS = "crc32", "offsets"
ROWS_AT_ONCE = 64
# Kinds of dtype that a column may have, and how deep below the checksums' group its name may be.
KINDS, DEEPEST = "biufS", 4
Sums = NDArray[np.uint32]


def write_column(file: h5py.File, name: str, values: NDArray[Any], *, dims: int = 1) -> None:
    """Write a column. A row, which has one checksum, is what lies below the first ``dims`` dimensions."""
    values = np.ascontiguousarray(values)
    column = file.create_dataset(name, data=values)
    column.attrs[SUMS] = zlib.crc32(_bytes(column[...]))
    write_sums(file, name, row_sums(values, dims=dims))


def write_strings(file: h5py.File, name: str, texts: Sequence[str]) -> None:
    """Write a column of texts."""
    # Of one fixed length, so that the column is contiguous and its checksum a matter of its bytes.
    raw = [text.encode("utf-8") for text in texts]
    length = max((len(text) for text in raw), default=1) or 1
    write_column(file, name, np.array(raw, dtype=h5py.string_dtype("utf-8", length)))


def write_blobs(file: h5py.File, name: str, blobs: Sequence[NDArray[np.uint8]]) -> None:
    """Write byte strings of different lengths one after the other; ``offset`` says where each begins."""
    write_column(file, "offset", np.cumsum([0, *(len(blob) for blob in blobs)]))
    write_text(file.create_dataset(name, data=np.concatenate(blobs)), OFFSETS, "offset")
    write_sums(file, name, np.array([zlib.crc32(blob.data) for blob in blobs], dtype=np.uint32))


def write_text(item: h5py.File | h5py.Dataset, name: str, text: str) -> None:
    """Write a text beside a file's or column's numbers."""
    # Of fixed length. One of any length lies in a heap of the file, where libhdf5 2.0 loops for ever
    # or reads what is not its own when a byte is wrong.
    item.attrs[name] = np.bytes_(text.encode("utf-8"))


def read_text(item: h5py.File | h5py.Dataset, name: str) -> str:
    """Return a text that :func:`write_text` wrote; KeyError or ValueError where there is none such."""
    return bytes(_attribute(item, name, "S")).decode("utf-8")


def write_sums(file: h5py.File, name: str, sums: Sums) -> None:
    """Write the checksums of a column's rows."""
    file[f"{SUMS}/{name}"] = sums


def read_column(file: h5py.File, name: str, *, kinds: str, ndim: tuple[int, ...] = (1,)) -> NDArray[Any]:
    """Read a column whole, and check it.

    ``kinds`` are the letters of numpy's kinds of dtype that it may have, ``ndim`` its numbers of dimensions.

    Raises
    ------
    ValueError
        If the column is of another type or shape, lies elsewhere than in the file, or is damaged.
    KeyError
        If there is none.
    """
    column = _column(file, name, kinds, ndim)
    values: NDArray[Any] = column[...]
    if int(_attribute(column, SUMS, "iu")) != zlib.crc32(_bytes(values)):
        raise ValueError(f"{name} differs from its checksum")
    return values


def read_strings(file: h5py.File, name: str) -> list[str]:
    """Return a column of texts; raises as :func:`read_column`."""
    return [text.decode("utf-8") for text in read_column(file, name, kinds="S")]


def mapped_column(
    path: Path, file: h5py.File, name: str, *, kinds: str, ndim: tuple[int, ...], dims: int = 1
) -> CheckedRows:
    """Return a column's rows as a read-only memory map, each checked when it is read.

    A row is what lies below the first ``dims`` dimensions, as it was written. h5py handles do not survive a
    fork, maps do. Raises as :func:`read_column`.
    """
    column, where = _column(file, name, kinds, ndim), f"{name} of {path}"
    mapped, sums = _map(path, column), read_sums(file, name)
    if sums.shape != mapped.shape[:dims]:
        raise ValueError(f"{name} has {sums.shape} checksums for {mapped.shape}")
    return CheckedRows(mapped.reshape(-1, *mapped.shape[dims:]), sums.ravel(), where=where)


def mapped_blobs(path: Path, file: h5py.File, name: str) -> CheckedBlobs:
    """Return byte strings that :func:`write_blobs` wrote, mapped; raises as :func:`read_column`."""
    offset = read_column(file, "offset", kinds="i")
    joined = _map(path, _column(file, name, "u", (1,)))
    if not len(offset) or offset[0] != 0 or offset[-1] != len(joined) or (np.diff(offset) < 0).any():
        raise ValueError(f"offset does not divide {name}")
    sums = read_sums(file, name)
    if len(sums) != len(offset) - 1:
        raise ValueError(f"{name} has {len(sums)} checksums for {len(offset) - 1} rows")
    return CheckedBlobs(joined, offset, sums, where=f"{name} of {path}")


def read_sums(file: h5py.File, name: str) -> Sums:
    """Return the checksums of a column's rows; raises as :func:`read_column`."""
    return np.asarray(_column(file, f"{SUMS}/{name}", "u", (1, 2))[...])


def wrong_rows_of(path: Path) -> WrongRows:
    """Return the rows that differ from their checksums, and the keys or texts of all.

    Raises
    ------
    OSError, KeyError, ValueError
        If the file cannot be read so far.
    """
    with open_hdf5(path) as file:
        wrong: set[int] = set()
        for name in _names(file, SUMS):
            sums = read_sums(file, name)
            if not sums.size:
                continue
            differ = _sums_now(file, name, sums.ndim) != sums
            wrong |= set(np.flatnonzero(differ.reshape(len(sums), -1).any(axis=1)).tolist())
        named = next((name for name in ("key", "text") if is_inner(file, name)), None)
        return WrongRows(rows=sorted(wrong), names=_texts(file, named) if named else [])


def _names(file: h5py.File, below: str) -> Iterator[str]:
    """Yield the names of the columns that have checksums."""
    where: list[str] = [below]
    while where:
        group = where.pop()
        for name in file[group]:
            path = f"{group}/{name}"
            if not is_inner(file, path) or path.count("/") > DEEPEST:
                raise ValueError(f"{path} is no checksum")
            if isinstance(file[path], h5py.Group):
                where.append(path)
            else:
                yield path.removeprefix(f"{below}/")


def _sums_now(file: h5py.File, name: str, dims: int) -> Sums:
    column = _column(file, name, KINDS, (1, 2, 3, 4))
    if OFFSETS in column.attrs:
        offset = _column(file, read_text(column, OFFSETS), "i", (1,))[...]
        blobs = (column[start:end] for start, end in itertools.pairwise(offset))
        return np.array([zlib.crc32(blob.data) for blob in blobs], dtype=np.uint32)
    starts = range(0, len(column), ROWS_AT_ONCE)
    return np.concatenate([row_sums(column[start : start + ROWS_AT_ONCE], dims=dims) for start in starts])


def _texts(file: h5py.File, name: str) -> list[str]:
    try:
        return read_strings(file, name)
    except (KeyError, ValueError):
        return []


def _attribute(item: h5py.File | h5py.Dataset, name: str, kinds: str) -> Any:
    """Return one number or text beside a column; KeyError or ValueError where there is none such."""
    if name not in item.attrs:
        raise KeyError(f"there is no {name}")
    attribute = item.attrs.get_id(name)
    dtype = _dtype_of(attribute, name)
    if dtype.kind not in kinds or attribute.shape != () or dtype.itemsize > LONGEST_ATTRIBUTE:
        raise ValueError(f"{name} is {dtype} of shape {attribute.shape}")
    return item.attrs[name]


def _dtype_of(item: Any, name: str) -> np.dtype[Any]:
    try:
        return np.dtype(item.dtype)
    except TypeError as error:  # h5py's for a type of HDF5 that numpy has not
        raise ValueError(f"{name} is of no type of numpy's") from error


def _column(file: h5py.File, name: str, kinds: str, ndim: tuple[int, ...]) -> h5py.Dataset:
    column = inner_dataset(file, name)
    dtype = _dtype_of(column, name)
    if column.chunks or not isinstance(column.shape, tuple):  # a compressed one may be larger than any memory
        raise ValueError(f"{name} is not a plain column")
    if dtype.kind not in kinds or not dtype.isnative or column.ndim not in ndim:
        raise ValueError(f"{name} is {dtype} of {column.ndim} dimensions")
    offset = column.id.get_offset() or 0
    if offset + column.nbytes > file.id.get_filesize():
        raise ValueError(f"{name} is longer than the file")
    return column


def _map(path: Path, column: h5py.Dataset) -> NDArray[Any]:
    offset = column.id.get_offset()
    if offset is None or column.size == 0:
        return np.asarray(column[...])
    return np.memmap(path, mode="r", dtype=column.dtype, shape=column.shape, offset=offset)


def _bytes(values: NDArray[Any]) -> Any:
    return np.ascontiguousarray(values).reshape(-1).view(np.uint8) if values.size else b""
