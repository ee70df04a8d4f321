"""Size of a cache, and how it grows.

Random rows, D = 768. The payload is the embeddings alone, D times the dtype's bytes an image; "beside the
payload" are the bytes of the shards and the manifest: keys, labels, check sums and the format's own as
well. WebDataset shards carry no pictures here, as none do in HDF5. "Open" is opening the cache and its
training split, "batch" 256 random rows in float32 (a median of 20), "verify" every check that distill cache
verify makes. Files were just written, so the system has them in memory.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Row, in_turn, medians, random_keys, timed
from cache import EmbeddingCache
from cache.maintain.verify import verify_cache

CLASSES, BATCH, BATCHES = 100, 256, 20
OPTIONS = {
    "rows": [1000, 10_000, 100_000],
    "embed_dim": 768,
    "formats": ["hdf5", "webdataset"],
    "dtypes": ["float16", "float32"],
}
COLUMNS = {
    "format, dtype": "{}",
    "rows": "{:,}",
    "bytes beside the payload": "{:.3g}",
    "open": "{:.3g} s",
    "batch of 256": "{:.3g} ms",
    "verify": "{:.3g} s",
}


def make(out: Path, rows: int, embed_dim: int, format: str, dtype: str) -> int:
    """Import random rows; return the bytes of the shards and the manifest."""
    keys = [f"train/class_{i % CLASSES:05d}/image_{i:08d}.jpg" for i in range(rows)]
    random_keys(out, keys, embed_dim=embed_dim, dtype=dtype, format=format)
    return sum(file.stat().st_size for file in [out / "manifest.json", *(out / "images").iterdir()])


def look(cache: Path) -> dict[str, float]:
    """Return the seconds of opening a cache, the milliseconds of a random batch, the seconds of verifying."""
    opening, rows = timed(lambda: EmbeddingCache.open(cache).split("train"))
    rng = np.random.default_rng(0)
    chosen = [rng.integers(len(rows), size=BATCH) for _ in range(BATCHES)]
    batch = statistics.median(timed(lambda at=at: rows.embeddings[at].astype(np.float32))[0] for at in chosen)
    verifying, checks = timed(lambda: verify_cache(cache))
    problems = [check.problem for check in checks if check.problem]
    if problems:
        raise RuntimeError(f"the cache is not sound: {problems[0]}")
    return {"open": opening, "batch of 256": 1e3 * batch, "verify": verifying}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let formats and dtypes take turns for every number of rows."""
    table, details = [], []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as scratch:
            ratios, ways = {}, {}
            for format, dtype in itertools.product(args.formats, args.dtypes):
                name, folder = f"{format}, {dtype}", Path(scratch) / f"{format}-{dtype}"
                payload = rows * args.embed_dim * np.dtype(dtype).itemsize
                ratios[name] = make(folder, rows, args.embed_dim, format, dtype) / payload
                ways[name] = partial(look, folder)
            rounds = in_turn(ways, args.rounds)
        for name, ratio in ratios.items():
            row = {"format, dtype": name, "rows": rows, "bytes beside the payload": ratio}
            table.append(row | medians([turn[name] for turn in rounds]))
        details.append(rounds)
    return table, details
