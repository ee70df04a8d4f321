"""The rows that a cache has of a split, as arrays over its row groups laid end to end."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.store.journal import RowGroup
from cache.store.journal_lines import RemovedRows, RestoredRows
from cache.store.row_group import read_keys
from cache.store.split_rows import SplitGroups


class StoredRows(SplitGroups):
    """N rows of some groups, removed ones too; row i is counted over the groups in their order."""

    def __init__(self, cache: Path, groups: Sequence[RowGroup]) -> None:
        # What is compared with the data is read off the keys, not off an index that is there.
        super().__init__(cache, groups[0].split if groups else "", groups, check=lambda line: None)
        self._files = [self.keys_of(group) for group in groups]

    def __len__(self) -> int:
        return int(self.starts[-1])

    @cached_property
    def hashes(self) -> NDArray[np.uint64]:
        """The hash of every row's key, uint64 [N]."""
        return np.concatenate([np.empty(0, np.uint64), *(file.hashes for file in self._files)])

    @cached_property
    def bytes(self) -> NDArray[np.int64]:
        """The size of every row's file, int64 [N]."""
        return np.concatenate([np.empty(0, np.int64), *(file.bytes for file in self._files)])

    @cached_property
    def mtime_ns(self) -> NDArray[np.int64]:
        """The modification time of every row's file, int64 [N]."""
        return np.concatenate([np.empty(0, np.int64), *(file.mtime_ns for file in self._files)])

    @cached_property
    def labels(self) -> NDArray[np.uint64]:
        """The codes of every row's classes, uint64 [N]; as those of a listing."""
        return np.concatenate([np.empty(0, np.uint64), *(file.label_codes() for file in self._files)])

    @property
    def live(self) -> NDArray[np.int64]:
        """The rows that are not removed, int64, in the order of the hashes of their keys."""
        return self.index.order

    @property
    def removed(self) -> NDArray[np.int64]:
        """The rows that the journal says are removed, int64."""
        return np.setdiff1d(np.arange(len(self)), self.live)

    @property
    def doubles(self) -> NDArray[np.int64]:
        """The live rows whose key has an earlier live row, int64: two tasks have made it."""
        hashes = self.index.hashes
        return self.live[1:][hashes[1:] == hashes[:-1]]

    def keys(self, rows: NDArray[np.int64]) -> list[str]:
        """Return the keys of some rows."""
        owners, inner = self.inside(rows)
        pairs = zip(owners.tolist(), inner.tolist(), strict=True)
        return [self._files[owner].key(row) for owner, row in pairs]

    def content(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the SHA-256 of the content of some rows, uint8 [n, 32]."""
        owners, inner = self.inside(rows)
        content = np.empty((len(rows), 32), dtype=np.uint8)
        for owner in np.unique(owners).tolist():
            content[owners == owner] = self._files[owner].content[inner[owners == owner]]
        return content

    def removing(self, rows: NDArray[np.int64]) -> Iterator[RemovedRows]:
        """Yield the lines that remove some rows, which are live."""
        for group, inner, digests in self._by_group(rows):
            yield RemovedRows(group=group, rows=inner, digests=digests)

    def restoring(self, rows: NDArray[np.int64]) -> Iterator[RestoredRows]:
        """Yield the lines that restore some rows, which are removed."""
        for group, inner, digests in self._by_group(rows):
            yield RestoredRows(group=group, rows=inner, digests=digests)

    def _by_group(self, rows: NDArray[np.int64]) -> Iterator[tuple[str, tuple[int, ...], dict[str, str]]]:
        owners, inner = self.inside(rows)
        for owner in np.unique(owners).tolist():
            group, own = self.groups[owner], inner[owners == owner]
            keys = read_keys(self.cache, group.keys).taken(own)
            yield group.name, tuple(own.tolist()), asdict(keys.digests())
