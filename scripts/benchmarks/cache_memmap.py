"""Rows in one array, mapped by numpy: what opening and a batch cost at the least."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cache_probe import ROWS_AT_ONCE, probe, random_block

ROWS, LABELS = "rows.npy", "labels.npy"


def make(folder: Path, rows: int, classes: int, embed_dim: int) -> None:
    """Write the rows, and a label of each."""
    folder.mkdir(parents=True)
    mapped = np.lib.format.open_memmap(folder / ROWS, "w+", dtype=np.float16, shape=(rows, embed_dim))
    for number, start in enumerate(range(0, rows, ROWS_AT_ONCE)):
        count = min(ROWS_AT_ONCE, rows - start)
        mapped[start : start + count] = random_block(number, count, embed_dim)
    mapped.flush()
    np.save(folder / LABELS, np.arange(rows) % classes)


def open_rows(folder: Path) -> tuple[Any, Any]:
    """Return the labels, and the rows mapped."""
    return np.load(folder / LABELS), np.load(folder / ROWS, mmap_mode="r")


if __name__ == "__main__":
    probe(sys.modules[__name__])  # type: ignore[arg-type]
