"""What the ways of the benchmark ``cache`` are measured by: one number each, in a process of its own.

Nothing of the cache is imported here: the format before has a ``cache`` of its own.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

BATCH, BATCHES, BLOCKS = 256, 100, 5
# Rows that are drawn, and written, in one go.
ROWS_AT_ONCE = 65_536
DTYPE = np.dtype(np.float16)


class Way(Protocol):
    """A module that has a way of keeping rows: each function gets the folder that ``make`` filled."""

    def make(self, folder: Path, rows: int, classes: int, embed_dim: int) -> None:
        """Write so many random rows [N, D] float16 of one split, whole and listed."""

    def open_rows(self, folder: Path) -> tuple[Any, Any]:
        """Return the labels [N], in memory, and the embeddings [N, D], as training takes them."""

    def verify(self, folder: Path) -> float:
        """Return the seconds of comparing every file with its checksum."""

    def no_op(self, folder: Path, rows: int, classes: int) -> dict[str, float]:
        """Return the seconds of a build that finds nothing to do, by the column that they go to."""


def random_block(number: int, rows: int, embed_dim: int) -> NDArray[np.float16]:
    """Return block ``number`` of a cache's rows, [n, D]."""
    rng = np.random.default_rng(number)
    return rng.standard_normal((rows, embed_dim), dtype=np.float32).astype(DTYPE)


def resident() -> dict[str, int]:
    """Return the resident bytes of this process: its own alone, with mapped files, and at most (Linux)."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {
        words[0]: 1024 * int(words[1]) for words in lines if words[0] in ("RssAnon:", "VmRSS:", "VmHWM:")
    }
    return {"own": sizes["RssAnon:"], "all": sizes["VmRSS:"], "peak": sizes["VmHWM:"]}


def handles() -> int:
    """Return how many files this process has open (Linux)."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def look(open_rows: Callable[[], tuple[Any, Any]]) -> dict[str, float]:
    """Open in a process that has imported what training imports, and take random batches.

    Memory is in MB, more than before opening. A batch is the CPU's milliseconds, a median of blocks after the
    first.
    """
    import h5py  # noqa: F401
    import torch  # noqa: F401

    before, open_before = resident(), handles()
    began = time.perf_counter()
    labels, embeddings = open_rows()
    assert len(embeddings[0]) == embeddings.shape[1]
    opening = time.perf_counter() - began
    opened = resident()
    rng = np.random.default_rng(0)
    blocks = []
    for _ in range(BLOCKS + 1):
        chosen = [rng.integers(len(labels), size=BATCH) for _ in range(BATCHES)]
        started = time.process_time()
        for rows in chosen:
            embeddings[rows]
        blocks.append(1e3 * (time.process_time() - started) / BATCHES)
    after = resident()
    return {
        "open": opening,
        "own memory": (opened["own"] - before["own"]) / 1e6,
        "with mapped pages": (opened["all"] - before["all"]) / 1e6,
        "after 600 batches": (after["all"] - before["all"]) / 1e6,
        "own, after 600 batches": (after["own"] - before["own"]) / 1e6,
        "peak": (after["peak"] - before["all"]) / 1e6,
        "open files": handles() - open_before,
        "batch of 256": statistics.median(blocks[1:]),
    }


def probe(way: Way) -> None:
    """Do what the command line asks of a way, and print what it measured."""
    parser = argparse.ArgumentParser()
    parser.add_argument("what", choices=("make", "look", "verify", "no_op"))
    parser.add_argument("folder", type=Path)
    for name in ("rows", "classes", "embed_dim"):
        parser.add_argument(name, type=int)
    args = parser.parse_args()
    measures: dict[str, Callable[[], Any]] = {
        "make": lambda: way.make(args.folder, args.rows, args.classes, args.embed_dim),
        "look": lambda: look(lambda: way.open_rows(args.folder)),
        "verify": lambda: {"verify": way.verify(args.folder)},
        "no_op": lambda: way.no_op(args.folder, args.rows, args.classes),
    }
    print(json.dumps(measures[args.what]()))
