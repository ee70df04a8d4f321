"""The rows of a conversion beside those of its source: which stay, which are gone, which are missing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.build.stored_rows import StoredRows
from cache.maintain.copied_groups import Copy, has_rows, row_columns
from cache.maintain.joined_columns import PlacedGroup
from cache.runtime.atomic_files import digest
from cache.store.journal import RowGroup
from cache.store.journal_lines import KEYS, SAMPLES, RemovedRows
from cache.store.mapped_arrays import MappedRows
from cache.store.row_group import KeysFile
from cache.store.split_rows import SplitRows
from cache.store.webdataset import rows_of_group

# What the line of a converted group's keys remembers: the row group that its rows were of.
FROM = "converted_from"
ROWS_AT_ONCE = 4096


def name_of(copy: Copy, group: RowGroup) -> str:
    """Return what names a row group's rows of the source: its keys, and what is written with them."""
    columns = (KEYS, SAMPLES, *row_columns(copy, [group]))
    return digest({column: group.lines[column].sha256 for column in columns if column in group.lines})


@dataclass(frozen=True, kw_only=True, slots=True)
class ConvertedGroup:
    """A row group of a conversion beside its source.

    ``places`` int64 has where each of its rows is in the split of the source, -1 for nowhere; ``stays`` bool
    says which of them are seen in both, with the same numbers.
    """

    group: RowGroup
    places: NDArray[np.int64]
    stays: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A split of a conversion, beside the ``rows`` of its source.

    ``kept`` are the groups of which some rows stay, ``empty`` those of which none does. ``missing`` are rows
    of the source that no group has.
    """

    rows: SplitRows
    copy: Copy
    kept: tuple[ConvertedGroup, ...]
    empty: tuple[RowGroup, ...]
    missing: NDArray[np.int64]

    @classmethod
    def of(cls, rows: SplitRows, copy: Copy, groups: Sequence[RowGroup]) -> Converted:
        """Join the rows of some groups to those of the source by key."""
        names = np.array([name_of(copy, group) for group in rows.groups.groups])
        labels = MappedRows(
            [rows.groups.keys_of(group).label_codes() for group in rows.groups.groups],
            rows.groups.index.order,
        )
        have = np.zeros(len(rows), dtype=bool)
        joined = []
        for group in groups:
            keys = KeysFile(copy.out, group.keys)
            at = rows.groups.index.find(keys.hashes)
            here = group.live_rows[at[group.live_rows] >= 0]
            same = (rows.files.content[at[here]] == keys.content[here]).all(axis=1)
            same &= (labels[at[here]] == keys.label_codes()[here]) & ~have[at[here]]
            here = here[same]
            # Of rows that lie elsewhere in the source now, joined or made again, the numbers are compared.
            number, _ = rows.group_of(at[here])
            moved = names[number] != str(group.keys.about.get(FROM))
            stays = np.zeros(group.rows, dtype=bool)
            stays[here] = True
            stays[here[moved]] = _same_numbers(rows, copy, group, at[here[moved]], here[moved])
            have[at[stays]] = True
            joined.append(ConvertedGroup(group=group, places=at, stays=stays))
        return cls(
            rows=rows,
            copy=copy,
            kept=tuple(one for one in joined if one.stays.any()),
            empty=tuple(one.group for one in joined if not one.stays.any()),
            missing=np.flatnonzero(~have),
        )

    def removed(self) -> Iterator[RemovedRows]:
        """Yield the lines that remove rows which do not stay, of groups in which others do."""
        for one in self.kept:
            rows = np.setdiff1d(one.group.live_rows, np.flatnonzero(one.stays))
            yield from StoredRows(self.copy.out, [one.group]).removing(rows)

    def missing_rows(self) -> Iterator[tuple[RowGroup, NDArray[np.int64]]]:
        """Yield the rows that no group has, by the group of the source that they lie in."""
        number, row = self.rows.group_of(self.missing)
        for one in np.unique(number).tolist():
            yield self.rows.groups.groups[one], np.sort(row[number == one])

    def sources_of(self, converted: ConvertedGroup) -> list[PlacedGroup]:
        """Return the groups of the source that have rows of a converted one, with where these are there."""
        here = np.flatnonzero(converted.places >= 0)
        number, row = self.rows.group_of(converted.places[here])
        placed = []
        for one in np.unique(number).tolist():
            source = self.rows.groups.groups[one]
            at = np.full(source.rows, -1, dtype=np.int64)
            at[row[number == one]] = here[number == one]
            placed.append(PlacedGroup(group=source, places=at))
        return placed


def _same_numbers(
    rows: SplitRows, copy: Copy, group: RowGroup, at: NDArray[np.int64], own: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Say of rows ``own`` of a converted group whether they are rows ``at`` of the source in every number."""
    same = np.ones(len(own), dtype=bool)
    for column in row_columns(copy, rows.groups.groups):
        source = MappedRows(
            [rows_of_group(copy.source, one, column) for one in rows.groups.groups], rows.groups.index.order
        )
        if not has_rows(copy.out, group, column):
            return np.zeros(len(own), dtype=bool)
        target = rows_of_group(copy.out, group, column)
        if target.shape[1:] != source.shape[1:] or target.dtype != source.dtype:
            return np.zeros(len(own), dtype=bool)
        for start in range(0, len(own), ROWS_AT_ONCE):
            one = slice(start, start + ROWS_AT_ONCE)
            differ = (source[at[one]] != target[own[one]]).reshape(len(own[one]), -1).any(axis=1)
            same[one] &= ~differ
    return same
