"""Rows of some row groups as those of a new one: their keys, and each column, in the new order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.maintain.column_files import ROW, ColumnFile
from cache.runtime.errors import UserError
from cache.sources.key_hashes import hashes_of
from cache.store.hdf5_columns import Blobs, Blocks, Column, MappedBlobs
from cache.store.journal import RowGroup
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import REPAIR
from cache.store.row_group import GroupKeys, read_keys
from cache.store.split_rows import Lazy

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class PlacedGroup:
    """A row group and where each of its rows is in the new one: ``places`` int64, -1 for nowhere."""

    group: RowGroup
    places: NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Selection:
    """The n rows of a new group: what they are of, and which groups of a cache they come from."""

    source: Path
    keys: GroupKeys
    placed: tuple[PlacedGroup, ...]

    @classmethod
    def of(
        cls, source: Path, chosen: Sequence[tuple[RowGroup, NDArray[np.int64]]], *, by_hash: bool
    ) -> Selection:
        """Take some rows of some groups one after the other, or in the order of their keys' hashes."""
        keys = _joined([read_keys(source, group.keys).taken(rows) for group, rows in chosen])
        order = np.argsort(hashes_of(keys.keys), kind="stable") if by_hash else np.arange(len(keys))
        place_of = np.empty(len(keys), dtype=np.int64)
        place_of[order] = np.arange(len(keys))
        placed, start = [], 0
        for group, rows in chosen:
            places = np.full(group.rows, -1, dtype=np.int64)
            places[rows] = place_of[start : start + len(rows)]
            placed.append(PlacedGroup(group=group, places=places))
            start += len(rows)
        return cls(source=source, keys=keys.taken(order), placed=tuple(placed))

    @property
    def order(self) -> NDArray[np.int64]:
        """Which rows of the placed, laid end to end, these are, int64 [n]."""
        return order_of([one.places for one in self.placed])[0]


def _joined(keys: Sequence[GroupKeys]) -> GroupKeys:
    return GroupKeys(
        split=keys[0].split,
        keys=[key for of_group in keys for key in of_group.keys],
        labels=[labels for of_group in keys for labels in of_group.labels],
        content=np.concatenate([of_group.content for of_group in keys]),
        bytes=np.concatenate([of_group.bytes for of_group in keys]),
        mtime_ns=np.concatenate([of_group.mtime_ns for of_group in keys]),
    )


def order_of(places: Sequence[NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return which rows of arrays that are laid end to end have a place, by place; and those places."""
    joined = np.concatenate(places)
    rows = np.flatnonzero(joined >= 0)
    rows = rows[np.argsort(joined[rows], kind="stable")]
    return rows, joined[rows]


def joined_column(
    source: Path, placed: Sequence[PlacedGroup], column: str, *, rows: int
) -> dict[str, Column]:
    """Return the datasets of a column of a new group of so many ``rows``; what has no row there is zeros.

    Raises
    ------
    UserError
        If a file is damaged, or they differ in what they hold.
    """
    files = [ColumnFile.open(source, one.group.lines[column]) for one in placed]
    forms = {frozenset((name, _form(values)) for name, values in file.datasets.items()) for file in files}
    if len(forms) > 1:
        raise UserError(f"the row groups of {source} have {column} in different forms", fix=REPAIR)
    order, places = order_of([one.places[file.rows] for one, file in zip(placed, files, strict=True)])
    datasets: dict[str, Column] = {}
    if files[0].has_row:
        datasets[ROW] = places.astype(np.int32)
        places, rows = np.arange(len(places)), len(places)
    for name in files[0].datasets:
        arrays = [file.datasets[name] for file in files]
        datasets[name] = taken(arrays, order, places, rows=rows)
    return datasets


def _form(values: NDArray[Any] | MappedBlobs) -> tuple[str, tuple[int, ...]]:
    return str(values.dtype), values.shape[1:]


def taken(arrays: Sequence[Any], order: NDArray[np.int64], places: NDArray[np.int64], *, rows: int) -> Column:
    """Return rows ``order`` of arrays that are laid end to end, at their ``places`` among so many rows."""
    joined = MappedRows(arrays)
    if isinstance(arrays[0], MappedBlobs):
        at = np.full(rows, -1, dtype=np.int64)
        at[places] = order
        return Blobs(Lazy(rows, lambda row: b"" if at[row] < 0 else bytes(joined[at[row]])))
    return Blocks(shape=(rows, *joined.shape[1:]), dtype=joined.dtype, blocks=_blocks(joined, order, places))


def _blocks(
    joined: MappedRows, order: NDArray[np.int64], places: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.int64], Sequence[NDArray[Any]]]]:
    for start in range(0, len(order), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        yield places[block], joined[order[block]]  # type: ignore[misc]
