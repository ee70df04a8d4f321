"""Rows that lie in several shards, read when asked for, and checked then."""

from __future__ import annotations

import mmap
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError

REPAIR = "run 'distill cache repair'; 'distill cache verify' says what else is damaged."


def row_sums(values: NDArray[Any], *, dims: int = 1) -> NDArray[np.uint32]:
    """Return the CRC-32 of every row's bytes, uint32 in the shape of the first ``dims`` dimensions."""
    shape = values.shape[:dims]
    count = int(np.prod(shape))
    if not values.size:
        return np.zeros(shape, dtype=np.uint32)
    rows = np.ascontiguousarray(values).reshape(-1).view(np.uint8).reshape(count, -1)
    return np.array([zlib.crc32(row.data) for row in rows], dtype=np.uint32).reshape(shape)


class CheckedRows:
    """Rows [n, ...] that are compared with their checksums [n] when they are read; ``where`` names them.

    What is copied out of a memory map is handed back at once: the file stays in the system's page cache, and
    not in this process's memory.
    """

    def __init__(self, rows: NDArray[Any], sums: NDArray[np.uint32], *, where: str) -> None:
        self._rows, self._sums, self._where = rows, sums, where
        self.shape, self.dtype = rows.shape, rows.dtype

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        """Return a copy of one row, or of those of a slice or an integer array.

        Raises
        ------
        UserError
            If a row differs from its checksum.
        """
        taken = np.array(self._rows[index])
        if isinstance(self._rows, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            self._rows._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        sums = np.atleast_1d(self._sums[index])
        differ = row_sums(taken.reshape(len(sums), -1)) != sums
        if differ.any():
            row = int(np.atleast_1d(np.arange(len(self))[index])[differ][0])
            raise UserError(f"row {row} of {self._where} differs from its checksum", fix=REPAIR)
        return taken

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype)


class CheckedBlobs:
    """Byte strings that lie one after the other, each compared with its checksum when it is read.

    Behaves as the rows of an array of objects; ``offset`` [n + 1] says where each begins.
    """

    dtype = np.dtype(object)

    def __init__(
        self,
        joined: NDArray[np.uint8],
        offset: NDArray[np.int64],
        sums: NDArray[np.uint32],
        *,
        where: str,
    ) -> None:
        self._joined, self._offset, self._sums, self._where = joined, offset, sums, where
        self.shape = (len(offset) - 1,)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the bytes of some rows, an array of objects; raises as :class:`CheckedRows`."""
        blobs = np.empty(len(rows), dtype=object)
        for i, row in enumerate(rows):
            blobs[i] = np.array(self._joined[self._offset[row] : self._offset[row + 1]])
            if zlib.crc32(blobs[i]) != self._sums[row]:
                raise UserError(f"row {row} of {self._where} differs from its checksum", fix=REPAIR)
        return blobs


class MappedRows:
    """Rows [N, D], or of any shape after N, that lie in several shards, read when asked for.

    Behaves as a read-only array in what training needs: ``len``, ``shape``, ``dtype``, one index, a
    slice, an integer array, and ``np.asarray`` for all of it. ``width`` cuts rows [N, D] to their beginning.
    """

    def __init__(self, shards: Sequence[Any], order: NDArray[np.int64], *, width: int | None = None) -> None:
        """Join ``shards``; row i of the whole is row ``order[i]`` of their concatenation."""
        self._shards = list(shards)
        self._order = order
        self._width = width
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        below = shards[0].shape[1:]
        self.shape = (len(order), *(below if width is None else (min(width, below[0]), *below[1:])))
        self.dtype = shards[0].dtype

    @classmethod
    def of(cls, rows: Any, *, width: int | None = None) -> MappedRows:
        """Return the rows of one array."""
        return cls([rows], np.arange(len(rows)), width=width)

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: Any) -> NDArray[Any]:
        places = self._order[index]
        if np.ndim(places) == 0:
            shard = int(np.searchsorted(self._starts, places, side="right")) - 1
            return self._taken(shard, places)
        rows = np.empty((len(places), *self.shape[1:]), dtype=self.dtype)
        shard_of = np.searchsorted(self._starts, places, side="right") - 1
        for shard in np.unique(shard_of):
            chosen = shard_of == shard
            rows[chosen] = self._taken(shard, places[chosen])
        return rows

    def _taken(self, shard: int, places: Any) -> NDArray[Any]:
        rows = np.asarray(self._shards[shard][places - self._starts[shard]])
        return rows if self._width is None else rows[..., : self._width]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype)
