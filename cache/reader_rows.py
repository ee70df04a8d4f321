"""Rows that lie in several shards, read when asked for."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MappedRows:
    """Rows [N, D], or of any shape after N, that lie in several shards, read when asked for.

    Behaves as a read-only array in what training needs: ``len``, ``shape``, ``dtype``, one index, a
    slice, an integer array, and ``np.asarray`` for all of it. What is copied out of a memory map is handed
    back at once: the file stays in the system's page cache, and not in this process's memory.
    """

    def __init__(self, shards: Sequence[Any], order: NDArray[np.int64]) -> None:
        """Join ``shards``; row i of the whole is row ``order[i]`` of their concatenation."""
        self._shards = list(shards)
        self._order = order
        self._starts = np.cumsum([0, *(len(shard) for shard in shards)])
        self.shape = (len(order), *shards[0].shape[1:])
        self.dtype = shards[0].dtype

    @classmethod
    def of(cls, rows: Any) -> MappedRows:
        """Return the rows of one array."""
        return cls([rows], np.arange(len(rows)))

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
        source = self._shards[shard]
        rows = np.array(source[places - self._starts[shard]])
        if isinstance(source, np.memmap) and hasattr(mmap, "MADV_DONTNEED"):
            source._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
        return rows

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        rows = self[:]
        return rows if dtype is None else rows.astype(dtype)
