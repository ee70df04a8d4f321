"""What a cache takes beside the numbers in it, and how opening, reading and verifying grow with its rows.

    python scripts/bench_cache_size.py --rows 1000,10000,100000
    python scripts/bench_cache_size.py --rows 1000000 --formats hdf5 --rounds 1

For every number of rows, format and dtype it imports random rows. The payload is the embeddings alone, D
times the dtype's bytes an image; the bytes are those of the shards and the manifest: keys, labels, check sums
and the format's own as well. WebDataset shards carry no pictures here, as none do in HDF5. "Open" is opening
the cache and its training split, "batch" 256 random rows in float32 (a median of 20), "verify" every check
that distill cache verify makes. Files were just written, so the system has them in memory. Formats and dtypes
take turns. Prints a table of medians, writes JSON.
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

from bench_parts import in_turn, listed, medians, one_of, parser_of, run, timed, whole, write_result
from cache import EmbeddingCache
from cache.maintain.import_embeddings import ImportedTexts, import_embeddings
from cache.maintain.verify import verify_cache
from cache.runtime.devices import choose_device

CLASSES, BATCH, BATCHES = 100, 256, 20


def make(out: Path, rows: int, embed_dim: int, format: str, dtype: str) -> int:
    """Import random rows; return the bytes of the shards and the manifest."""
    rng = np.random.default_rng(0)
    keys = [f"train/class_{i % CLASSES:05d}/image_{i:08d}.jpg" for i in range(rows)]
    classes = sorted({key.split("/")[1] for key in keys})
    texts = ImportedTexts(
        name="labels", classes=classes, embeddings=rng.normal(size=(len(classes), embed_dim))
    )
    embeddings = rng.standard_normal((rows, embed_dim), dtype=np.float32)
    import_embeddings(out, keys=keys, embeddings=embeddings, texts=[texts], dtype=dtype, format=format)
    return sum(file.stat().st_size for file in [out / "manifest.json", *(out / "images").iterdir()])


def look(cache: Path) -> dict[str, float]:
    """Return the seconds of opening a cache, of one random batch, and of verifying it."""
    opening, rows = timed(lambda: EmbeddingCache.open(cache).split("train"))
    rng = np.random.default_rng(0)
    chosen = [rng.integers(len(rows), size=BATCH) for _ in range(BATCHES)]
    batch = statistics.median(timed(lambda at=at: rows.embeddings[at].astype(np.float32))[0] for at in chosen)
    verifying, checks = timed(lambda: verify_cache(cache))
    problems = [check.problem for check in checks if check.problem]
    if problems:
        raise RuntimeError(f"the cache is not sound: {problems[0]}")
    return {"open": opening, "batch": batch, "verify": verifying}


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=3)
    parser.add_argument("--rows", type=listed(whole(1)), default="1000,10000,100000")
    parser.add_argument("--embed-dim", type=whole(1), default=768)
    parser.add_argument("--formats", type=listed(one_of("hdf5", "webdataset")), default="hdf5,webdataset")
    parser.add_argument("--dtypes", type=listed(one_of("float16", "float32")), default="float16,float32")
    args = parser.parse_args()
    print(f"{'rows':>10}  {'format':12}{'dtype':10}{'bytes/image':>12}{'payload':>9}{'ratio':>8}", end="")
    print(f"{'open, s':>10}{'batch, ms':>11}{'verify, s':>11}")
    found = {str(rows): compare(args, rows) for rows in args.rows}
    write_result(args, {"rows": found}, choose_device("cpu"))


def compare(args: argparse.Namespace, rows: int) -> dict[str, Any]:
    """Let formats and dtypes take turns on so many rows, print their lines and return them."""
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        kinds = list(itertools.product(args.formats, args.dtypes))
        where = {f"{format} {dtype}": Path(scratch) / f"{format}-{dtype}" for format, dtype in kinds}
        for (format, dtype), (name, folder) in zip(kinds, where.items(), strict=True):
            size = make(folder, rows, args.embed_dim, format, dtype) / rows
            payload = args.embed_dim * np.dtype(dtype).itemsize
            result[name] = {"bytes_per_image": size, "payload": payload, "ratio": size / payload}
        rounds = in_turn({name: partial(look, folder) for name, folder in where.items()}, args.rounds)
    for format, dtype in kinds:
        one = result[f"{format} {dtype}"]
        one |= {"rounds": [turn[f"{format} {dtype}"] for turn in rounds]}
        one |= medians(one["rounds"])
        print(f"{rows:10,}  {format:12}{dtype:10}{one['bytes_per_image']:12,.0f}{one['payload']:9,}", end="")
        print(f"{one['ratio']:8.3f}{one['open']:10.3f}{1e3 * one['batch']:11.3f}{one['verify']:11.3f}")
    return result


if __name__ == "__main__":
    run(main)
