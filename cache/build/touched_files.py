"""Files that were written again with what they held before: kept in ``index/SPLIT.touched.h5``.

A row keeps the size and time of its file, and never changes. Without this list a folder that was copied
would be read whole at every run. It may be removed: then they are read once more.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from cache.sources.key_hashes import positions
from cache.store.hdf5_columns import map_columns, write_columns
from cache.store.key_index import FOLDER
from cache.store.read_errors import READ_ERRORS


@dataclass(frozen=True, kw_only=True, slots=True)
class TouchedFiles:
    """M files by the hash of their key, uint64 [M], sorted; ``seen`` int64 [M, 3]: bytes, mtime_ns, content.

    The content is the first 64 bits of its hash.
    """

    hashes: NDArray[np.uint64]
    seen: NDArray[np.int64]

    @classmethod
    def empty(cls) -> Self:
        """Return none."""
        return cls(hashes=np.empty(0, np.uint64), seen=np.empty((0, 3), np.int64))

    @classmethod
    def load(cls, cache: Path, split: str) -> Self:
        """Return those of a split; none where nothing, or nothing that can be read, is kept."""
        try:
            columns = map_columns(_path(cache, split), {"hash": ("u", (1,)), "seen": ("i", (2,))})
        except READ_ERRORS:
            return cls.empty()
        hashes, seen = columns["hash"], columns["seen"]
        if seen.shape != (len(hashes), 3) or (hashes[1:] <= hashes[:-1]).any():
            return cls.empty()
        return cls(hashes=hashes.astype(np.uint64), seen=seen.astype(np.int64))

    def save(self, cache: Path, split: str) -> None:
        """Keep them."""
        write_columns(_path(cache, split), {"hash": self.hashes, "seen": self.seen})

    def covers(self, hashes: NDArray[np.uint64], seen: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say of files by their keys' hashes [n] whether they were seen so, [n, 3]."""
        at = positions(self.hashes, hashes)
        covered = at >= 0
        covered[covered] = (self.seen[at[covered]] == seen[covered]).all(axis=1)
        return covered

    def with_files(self, hashes: NDArray[np.uint64], seen: NDArray[np.int64]) -> Self:
        """Return them with more files, in place of those of the same key."""
        kept = ~np.isin(self.hashes, hashes)
        all_hashes = np.concatenate([self.hashes[kept], hashes])
        order = np.argsort(all_hashes)
        return type(self)(hashes=all_hashes[order], seen=np.concatenate([self.seen[kept], seen])[order])


def first_64_bits(content: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the first eight bytes of hashes uint8 [n, 32] as int64 [n]."""
    first: NDArray[Any] = np.ascontiguousarray(content[:, :8])
    return first.view(np.int64)[:, 0]


def _path(cache: Path, split: str) -> Path:
    return cache / FOLDER / f"{split}.touched.h5"
