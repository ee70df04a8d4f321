"""The files of some row groups as those of one: the rows that are seen, copied column by column."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from cache.maintain.column_files import ROW, ColumnFile
from cache.runtime.errors import UserError
from cache.store.hdf5_columns import Blobs, Blocks, Column, MappedBlobs
from cache.store.journal import RowGroup
from cache.store.read_errors import REPAIR
from cache.store.row_group import GroupKeys, read_keys

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """A row group with those of its ``rows`` that are seen; in the joined group they begin at ``start``."""

    group: RowGroup
    rows: NDArray[np.int64]
    start: int

    @property
    def places(self) -> NDArray[np.int64]:
        """Where each row of the group is in the joined one, -1 for none."""
        places = np.full(self.group.rows, -1, dtype=np.int64)
        places[self.rows] = np.arange(self.start, self.start + len(self.rows))
        return places


def parts_of(groups: Sequence[RowGroup]) -> list[Part]:
    """Return the parts that some groups are of the one that they are joined to."""
    starts = itertools.accumulate((group.live for group in groups), initial=0)
    return [
        Part(group=group, rows=np.setdiff1d(np.arange(group.rows), sorted(group.removed)), start=start)
        for group, start in zip(groups, starts, strict=False)
    ]


def joined_keys(cache: Path, parts: Sequence[Part]) -> GroupKeys:
    """Return what the joined rows are of; UserError where keys are damaged."""
    keys = [read_keys(cache, part.group.keys).taken(part.rows) for part in parts]
    return GroupKeys(
        split=keys[0].split,
        keys=[key for of_part in keys for key in of_part.keys],
        labels=[labels for of_part in keys for labels in of_part.labels],
        content=np.concatenate([of_part.content for of_part in keys]),
        bytes=np.concatenate([of_part.bytes for of_part in keys]),
        mtime_ns=np.concatenate([of_part.mtime_ns for of_part in keys]),
    )


def joined_column(cache: Path, parts: Sequence[Part], column: str) -> dict[str, Column]:
    """Return the datasets of a column of the joined rows; groups without it have none of them.

    Raises
    ------
    UserError
        If a file is damaged, or they differ in what they hold.
    """
    files, kept = [], []
    for part in parts:
        if (line := part.group.lines.get(column)) is not None:
            file = ColumnFile.open(cache, line)
            places = part.places[file.rows]
            files.append(file)
            kept.append((np.flatnonzero(places >= 0), places[places >= 0]))
    if (
        len({frozenset((name, _form(values)) for name, values in file.datasets.items()) for file in files})
        > 1
    ):
        raise UserError(f"the row groups of {cache} have {column} in different forms", fix=REPAIR)
    datasets: dict[str, Column] = {}
    if files[0].has_row:
        datasets[ROW] = np.concatenate([places for _, places in kept]).astype(np.int32)
    for name in files[0].datasets:
        datasets[name] = _joined(
            [(file.datasets[name], rows) for file, (rows, _) in zip(files, kept, strict=True)]
        )
    return datasets


def _form(values: NDArray[Any] | MappedBlobs) -> tuple[str, tuple[int, ...]]:
    return str(values.dtype), values.shape[1:]


def _joined(arrays: Sequence[tuple[Any, NDArray[np.int64]]]) -> Column:
    first, count = arrays[0][0], sum(len(rows) for _, rows in arrays)
    if isinstance(first, MappedBlobs):
        return Blobs(_JoinedBlobs(arrays))
    return Blocks(shape=(count, *first.shape[1:]), dtype=first.dtype, blocks=_blocks(arrays))


def _blocks(
    arrays: Sequence[tuple[NDArray[Any], NDArray[np.int64]]],
) -> Iterator[tuple[NDArray[np.int64], Any]]:
    place = 0
    for array, rows in arrays:
        for start in range(0, len(rows), ROWS_AT_ONCE):
            block = array[rows[start : start + ROWS_AT_ONCE]]
            yield np.arange(place, place + len(block)), block
            place += len(block)


class _JoinedBlobs(Sequence[bytes]):
    """Byte strings of several files, each read when it is asked for."""

    def __init__(self, arrays: Sequence[tuple[MappedBlobs, NDArray[np.int64]]]) -> None:
        self._arrays = arrays
        self._starts = np.cumsum([0, *(len(rows) for _, rows in arrays)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    @overload
    def __getitem__(self, index: int) -> bytes: ...

    @overload
    def __getitem__(self, index: slice) -> list[bytes]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not 0 <= index < len(self):
            raise IndexError(index)
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        blobs, rows = self._arrays[number]
        return blobs[rows[index - self._starts[number]]]
