"""The format before row groups, by its own code: a checkout of ``BEFORE`` stands first on PYTHONPATH."""

from __future__ import annotations

import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.cache_probe import probe, random_block
from cache import EmbeddingCache

BEFORE = "679bfa800ddb27b3dd3eba92454a6093831577cb"
SHARD_ROWS, BYTES, MTIME_NS = 4096, 20_000, 1_700_000_000_000_000_000


def key_of(row: int, classes: int) -> str:
    """Return the key of a row."""
    return f"class_{row % classes:05d}/{row:08d}.jpg"


def _spec() -> Any:
    from cache.store.spec import CacheSpec, TeacherSpec

    words = ("model", "pretrained", "architecture", "weights_sha256", "preprocessing")
    teacher = dict.fromkeys((*words, "interpolation", "resize_mode", "precision"), "random")
    return CacheSpec(teacher=TeacherSpec(image_size=0, mean=(), std=(), **teacher))


def make(folder: Path, rows: int, classes: int, embed_dim: int) -> None:
    """Write shards of its own size in key order, and one manifest."""
    from cache.build.shard_writer import write_shard
    from cache.store.manifest import Manifest
    from cache.store.manifest_lines import ListedSplit
    from cache.store.shard_rows import ShardRows

    keys = sorted(key_of(row, classes) for row in range(rows))
    shards = []
    for number, start in enumerate(range(0, rows, SHARD_ROWS)):
        chosen = keys[start : start + SHARD_ROWS]
        count = len(chosen)
        content = ShardRows(
            split="train",
            keys=chosen,
            labels=np.array([int(key[6:11]) for key in chosen], dtype=np.int64),
            image_embedding=random_block(number, count, embed_dim),
            file_sha256=[f"{start + i:064x}" for i in range(count)],
            file_bytes=np.full(count, BYTES),
            file_mtime_ns=np.full(count, MTIME_NS),
        )
        shards.append(write_shard(folder, f"images/train-{number:05d}.h5", content, "hdf5"))
    names = tuple(f"class_{label:05d}" for label in range(classes))
    split = ListedSplit(class_names=names, shards=tuple(shards))
    Manifest(spec=_spec(), embed_dim=embed_dim, splits={"train": split}, complete=True).save(folder)


def open_rows(folder: Path) -> tuple[Any, Any]:
    """Return the labels, and the embeddings as training takes them."""
    rows = EmbeddingCache.open(folder).split("train")
    return rows.labels, rows.embeddings


def verify(folder: Path) -> float:
    """Return the seconds of ``cache verify``."""
    from cache.maintain.verify import verify_cache

    began = time.perf_counter()
    problems = [check.problem for check in verify_cache(folder) if check.problem]
    assert not problems, problems[0]
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class NoFile:
    """An image of which the listing alone is there: no disk is asked for its size and time."""

    key: str
    label: int

    @property
    def path(self) -> Path:
        """Where any file of that size and time is."""
        return Path("any")


def no_op(folder: Path, rows: int, classes: int) -> dict[str, float]:
    """Return the seconds of a build that has nothing to do: every one lists every image."""
    from cache import changed_images
    from cache.build.options import Build, BuildOptions
    from cache.build.pipeline import build_cache
    from cache.sources.samples import RecordFolder, RecordSplit
    from cache.store.manifest import Manifest

    status = os.stat_result((0, 0, 0, 0, 0, 0, BYTES, 0, 0, 0), {"st_mtime_ns": MTIME_NS})
    changed_images.os = SimpleNamespace(stat=lambda path: status)  # type: ignore[assignment]
    names = tuple(f"class_{label:05d}" for label in range(classes))
    images = (NoFile(key_of(row, classes), row % classes) for row in range(rows))
    split = RecordSplit(
        name="train", class_names=names, images=tuple(sorted(images, key=lambda image: image.key))
    )
    manifest = Manifest.load(folder)
    build = Build(
        folder=RecordFolder(path=Path("images"), splits={"train": split}),
        out=folder,
        teacher=SimpleNamespace(embed_dim=manifest.embed_dim),  # type: ignore[arg-type]
        spec=manifest.spec,
        options=BuildOptions(model=""),
    )
    began = time.perf_counter()
    summary = build_cache(build, lambda build, manifest, plans, seconds: manifest)
    assert (summary.rows, summary.new_rows) == (rows, 0)
    seconds = time.perf_counter() - began
    return {"listed anew": seconds, "no-op run": seconds}


if __name__ == "__main__":
    probe(sys.modules[__name__])  # type: ignore[arg-type]
