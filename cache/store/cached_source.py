"""The rows of a cache as a source: those that were not removed; a chunk is a row group."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Container, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Generic, TypedDict, TypeVar

import numpy as np

from cache.sources.accounts import NOTHING, Account
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Chunk, Listed, Sample
from cache.store.journal import RowGroup
from cache.store.row_group import read_keys
from cache.store.split_rows import SplitGroups

Row = TypeVar("Row", bound=Sample)


class Known(TypedDict):
    """What a keys' file says of a row."""

    key: str
    labels: tuple[str, ...]
    sha256: bytes
    file_bytes: int
    mtime_ns: int


class CachedSource(ABC, Generic[Row]):
    """The rows of one split of a cache as samples; a subclass adds what is beside its keys."""

    multi_label = False

    def __init__(self, cache: Path, split: str, classes: tuple[str, ...], groups: Sequence[RowGroup]) -> None:
        self.split, self.classes, self.cache = split, classes, cache
        self._groups = {group.name: group for group in groups}

    @abstractmethod
    def samples_of(self, group: RowGroup) -> Callable[[int, Known], Row]:
        """Return what makes a sample of a group's row, by its number and what is known of it."""

    def __len__(self) -> int:
        return sum(group.live for group in self._groups.values())

    def chunks(self) -> Sequence[Chunk]:
        """Return the row groups."""
        return [Chunk(id=name, identity=group.keys.sha256) for name, group in self._groups.items()]

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield what is in a row group, by key."""
        for sample in self.read(chunk):
            yield Listed(sample.key, sample.labels, *sample.status())

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[Row]:
        """Yield the samples of a row group by key, of ``keys`` alone where there are any."""
        samples = self.rows_of(chunk)
        yield from sorted((s for s in samples if keys is None or s.key in keys), key=lambda s: s.key)

    def rows_of(self, chunk: str, rows: Sequence[int] | None = None) -> Iterator[Row]:
        """Yield the samples of a row group that were not removed, in its order, of some ``rows`` alone."""
        group = self._groups[chunk]
        keys, make = read_keys(self.cache, group.keys), self.samples_of(group)
        sizes, times = keys.bytes.tolist(), keys.mtime_ns.tolist()
        for row in range(len(keys)) if rows is None else rows:
            if row not in group.removed:
                known = Known(
                    key=keys.keys[row],
                    labels=keys.labels[row],
                    sha256=keys.content[row].tobytes(),
                    file_bytes=sizes[row],
                    mtime_ns=times[row],
                )
                yield make(row, known)

    def account(self) -> Account:
        """Return that nothing is left out: what is in a cache was taken."""
        return NOTHING

    def samples(self, keys: Sequence[str]) -> Iterator[Row]:
        """Yield samples in the order of keys; KeyError for one that is not here."""
        groups = SplitGroups(self.cache, self.split, tuple(self._groups.values()))
        at = groups.index.find(hashes_of(keys))
        if (at < 0).any():
            raise KeyError(keys[int((at < 0).argmax())])
        number, rows = groups.inside(groups.index.order[at])
        sample_of: dict[str, Row] = {}
        for one in np.unique(number).tolist():
            own = self.rows_of(groups.groups[one].name, rows[number == one].tolist())
            sample_of |= {sample.key: sample for sample in own}
        yield from (sample_of[key] for key in keys)

    def all(self) -> tuple[Row, ...]:
        """Return every sample, sorted by key."""
        return self._all

    @cached_property
    def _all(self) -> tuple[Row, ...]:
        samples = (sample for name in self._groups for sample in self.rows_of(name))
        return tuple(sorted(samples, key=lambda sample: sample.key))
