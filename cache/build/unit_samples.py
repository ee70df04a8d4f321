"""The samples of planned units, listed where they are embedded, in the batches that every writer makes."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

import numpy as np

from cache.build.plan import Unit
from cache.runtime.transfer import one_behind
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Sample, Source
from cache.store.journal import Journal
from cache.store.key_index import KeyIndex
from cache.store.row_group import read_keys
from cache.store.split_rows import SplitGroups

Item = TypeVar("Item")


@dataclass(frozen=True, kw_only=True, slots=True)
class SampleBatch:
    """Samples of a unit that the teacher is given at once."""

    unit: Unit
    samples: tuple[Sample, ...]


@dataclass(frozen=True, kw_only=True)
class UnitSamples:
    """Lists units by the key indexes of their splits, which are those of the plan, and stay so meanwhile.

    ``made`` are the keys of what a lost task has made of them already.
    """

    sources: Mapping[str, Source]
    indexes: Mapping[str, KeyIndex]
    batch_size: int
    made: Container[str] = frozenset()

    def batches(self, units: Iterable[Unit]) -> Iterator[SampleBatch]:
        """Yield the batches of units, in order; while one chunk is embedded a thread lists the next."""
        with ThreadPoolExecutor(1) as thread:
            chunks = ((unit, chunk) for unit in units for chunk in unit.chunks)
            for listing in one_behind(thread.submit(self._batches_of_chunk, *one) for one in chunks):
                yield from listing.result()

    def _batches_of_chunk(self, unit: Unit, chunk: str) -> list[SampleBatch]:
        source, size = self.sources[unit.split], self.batch_size
        keys = [one.key for one in source.list(chunk) if one.key not in unit.without]
        row = self.indexes[unit.split].find(hashes_of(keys))
        missing = [keys[i] for i in np.flatnonzero(row < 0).tolist()]
        first, every = unit.share
        cut = [missing[start : start + size] for start in range(0, len(missing), size)][first::every]
        # A group is of whole batches: one key of a batch stands for all.
        cut = [batch for batch in cut if batch[0] not in self.made]
        # In the order of the list, which is that of the batches.
        samples = source.read(chunk, {key for batch in cut for key in batch})
        batch_of = {key: number for number, batch in enumerate(cut) for key in batch}
        return [
            SampleBatch(unit=unit, samples=tuple(own))
            for _, own in groupby(samples, lambda sample: batch_of[sample.key])
        ]


def made_before(journal: Journal, cache: Path, unit: Unit, planned: Container[str]) -> frozenset[str]:
    """Return the keys that a lost task has made of a unit, or could not read.

    They are in row groups that the plan, which names those that it has seen, does not know.
    """
    lines = [
        group.keys
        for group in journal.groups(unit.split)
        if group.name not in planned and group.keys.about.get("unit") == unit.name
    ]
    keys = {key for line in lines for key in read_keys(cache, line).keys}
    return frozenset(keys | (journal.skipped.get(unit.split, {}).keys() - unit.without))


def open_indexes(
    journal: Journal, cache: Path, planned: Container[str], splits: Iterable[str]
) -> dict[str, KeyIndex]:
    """Return the key indexes of splits as the plan, which names its row groups, has made them."""
    indexes = {}
    for split in splits:
        groups = [group for group in journal.live_groups(split) if group.name in planned]
        indexes[split] = SplitGroups(cache, split, groups).index
    return indexes
