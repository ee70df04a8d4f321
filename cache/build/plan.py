"""What is left to do, in pieces that any writer can take: chunks of the sources, and shares of chunks.

A plan names chunks and holds nothing of each sample; who makes a unit lists its chunks itself. The samples
of a chunk that have no row, in key order, are cut into batches, and a unit is all batches of some chunks, or
each n-th of one: so however many writers there are they make the same batches, and the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil

import numpy as np

from cache.build.split_changes import SplitChanges
from cache.build.split_listing import SplitListing
from cache.store.row_group import GROUP_ROWS

# So that a lost writer costs little, and all of them end at about the same time.
UNITS_A_WRITER = 4
# A group ends with its unit, and a kill costs the open one. So chunks are put together only up to so many
# rows, or a share of all: of very many rows there are no more than some hundred groups a writer.
ROWS_TOGETHER, PARTS_TOGETHER = 8192, 64


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedChunk:
    """A chunk with samples to embed: how many, and the keys of those without a row that are left out."""

    id: str
    rows: int
    without: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Unit:
    """What one writer makes in one go: of its ``chunks`` the batches k, k + n, ...; ``share`` is (k, n).

    ``rows`` is how many samples that is; ``without`` are keys that are left out.
    """

    split: str
    chunks: tuple[str, ...]
    rows: int
    share: tuple[int, int] = (0, 1)
    without: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        """What it is called in the journal."""
        return f"{self.split} {self.chunks[0]}-{self.chunks[-1]} {self.share[0]}/{self.share[1]}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """The chunks of every split that have samples to embed."""

    splits: Mapping[str, tuple[PlannedChunk, ...]] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """How many samples are to be embedded."""
        return sum(chunk.rows for chunks in self.splits.values() for chunk in chunks)

    def units(self, writers: int, *, batch_size: int) -> list[Unit]:
        """Return the plan in units of a group's rows at most, for so many writers to share."""
        return [
            unit
            for split, chunks in self.splits.items()
            for unit in _units(split, chunks, writers, batch_size)
        ]


def planned_chunks(listing: SplitListing, changes: SplitChanges) -> tuple[PlannedChunk, ...]:
    """Return the chunks of a listed split that have samples to embed."""
    counts = np.bincount(listing.chunk[changes.missing], minlength=len(listing.chunks)).tolist()
    without: dict[int, list[str]] = {}
    for key, (_, chunk) in changes.skipped.items():
        without.setdefault(chunk, []).append(key)
    return tuple(
        PlannedChunk(id=id, rows=count, without=tuple(without.get(number, ())))
        for number, (id, count) in enumerate(zip(listing.chunks, counts, strict=True))
        if count
    )


def _units(split: str, chunks: Sequence[PlannedChunk], writers: int, batch_size: int) -> list[Unit]:
    whole = sum(chunk.rows for chunk in chunks)
    most = min(GROUP_ROWS, ceil(whole / (UNITS_A_WRITER * writers)))
    most_together = min(most, max(ROWS_TOGETHER, ceil(whole / (PARTS_TOGETHER * writers))))
    units: list[Unit] = []
    together: list[PlannedChunk] = []
    for chunk in chunks:
        shares = min(ceil(chunk.rows / most), ceil(chunk.rows / batch_size))
        if shares > 1:
            units += [_share(split, chunk, k, shares, batch_size) for k in range(shares)]
            continue
        if together and sum(one.rows for one in together) + chunk.rows > most_together:
            units.append(_unit(split, together))
            together = []
        together.append(chunk)
    return units + ([_unit(split, together)] if together else [])


def _unit(split: str, chunks: Sequence[PlannedChunk]) -> Unit:
    return Unit(
        split=split,
        chunks=tuple(chunk.id for chunk in chunks),
        rows=sum(chunk.rows for chunk in chunks),
        without=frozenset(key for chunk in chunks for key in chunk.without),
    )


def _share(split: str, chunk: PlannedChunk, first: int, every: int, batch_size: int) -> Unit:
    starts = range(first * batch_size, chunk.rows, every * batch_size)
    return Unit(
        split=split,
        chunks=(chunk.id,),
        rows=sum(min(batch_size, chunk.rows - start) for start in starts),
        share=(first, every),
        without=frozenset(chunk.without),
    )
