"""Column files as what they are to all of them: datasets of one row an image, whatever the column.

A dataset is an array [n, ...], or byte strings with their offsets [n + 1]. A file with ``row`` [m] has them
of those rows of the group alone, [m, ...].
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.hdf5_safety import open_hdf5
from cache.store.hdf5_columns import BLOBS, KINDS, OFFSET, Form, MappedBlobs, map_columns
from cache.store.journal_lines import FileLine
from cache.store.read_errors import reading

ROW = "row"
_ANY_NDIM = (1, 2, 3, 4)


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnFile:
    """The datasets of a column file, mapped, and the rows of its group that they are of, int64 [m]."""

    datasets: Mapping[str, NDArray[Any] | MappedBlobs]
    rows: NDArray[np.int64]
    has_row: bool

    @classmethod
    def open(cls, cache: Path, line: FileLine) -> ColumnFile:
        """Map a column file; UserError where it is missing or damaged, or not of one row an image."""
        path = cache / line.file
        with reading(path, size=line.bytes):
            with open_hdf5(path) as file:
                names = list(file)
            blobs = {name for name in names if name + OFFSET in names}
            arrays = [name for name in names if name not in blobs and name.removesuffix(OFFSET) not in blobs]
            forms: dict[str, Form] = dict.fromkeys(arrays, (KINDS, _ANY_NDIM))
            datasets = map_columns(path, {**forms, **dict.fromkeys(sorted(blobs), BLOBS)})
            rows = datasets.pop(ROW, None)
            column = cls(
                datasets=datasets,
                rows=np.arange(line.rows) if rows is None else np.asarray(rows, dtype=np.int64),
                has_row=rows is not None,
            )
            column._check(line.rows)
        return column

    def _check(self, rows: int) -> None:
        at = self.rows
        if at.ndim != 1 or (len(at) and not 0 <= at[0] <= at[-1] < rows) or (np.diff(at) <= 0).any():
            raise ValueError(f"its rows are none of {rows:,}")
        for name, values in self.datasets.items():
            if len(values) != len(at):
                raise ValueError(f"{name:.80} has {len(values):,} rows, expected {len(at):,}")
