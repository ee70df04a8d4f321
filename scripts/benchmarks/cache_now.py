"""Row groups of column files, as a build writes them and training reads them."""

from __future__ import annotations

import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from cache import EmbeddingCache

from benchmarks.cache_probe import probe, random_block

SPLIT = "train"
BYTES, MTIME_NS = 20_000, 1_700_000_000_000_000_000


def _spec() -> Any:
    from cache.store.spec import CacheSpec, TeacherSpec

    kinds = {"tuple": (), "int": 0, "str": "random", "dict": {}}
    given = {f.name: kinds[str(f.type).partition("[")[0]] for f in fields(TeacherSpec)}
    return CacheSpec(teacher=TeacherSpec(**given))


def make(folder: Path, rows: int, classes: int, embed_dim: int) -> None:
    """Write full row groups, the index, and the manifest."""
    from cache.store.journal import Journal, JournalWriter
    from cache.store.key_index import KeyIndex
    from cache.store.manifest import Manifest
    from cache.store.row_group import GROUP_ROWS, GroupKeys, KeysFile, claim_group, write_group

    folder.mkdir(parents=True)
    names = tuple(f"class_{label:05d}" for label in range(classes))
    writer = JournalWriter(folder)
    for number, start in enumerate(range(0, rows, GROUP_ROWS)):
        of_group = range(start, min(start + GROUP_ROWS, rows))
        count = len(of_group)
        content = np.random.default_rng(start).integers(0, 256, (count, 32), dtype=np.uint8)
        keys = GroupKeys(
            split=SPLIT,
            keys=[f"{names[row % classes]}/{row:08d}.jpg" for row in of_group],
            labels=[(names[row % classes],) for row in of_group],
            content=content,
            bytes=np.full(count, BYTES),
            mtime_ns=np.full(count, MTIME_NS),
        )
        columns = {"image_embedding": {"embedding": random_block(number, count, embed_dim)}}
        writer.add(*write_group(folder, claim_group(folder, SPLIT), keys, columns))
    groups = Journal.load(folder).groups(SPLIT)
    KeyIndex.of(groups, lambda group: KeysFile(folder, group.keys)).save(folder, SPLIT, groups)
    Manifest(spec=_spec(), embed_dim=embed_dim, splits={SPLIT: names}, complete=True).save(folder)


def open_rows(folder: Path) -> tuple[Any, Any]:
    """Return the labels, and the embeddings as training takes them."""
    rows = EmbeddingCache.open(folder).split(SPLIT)
    return rows.labels, rows.embeddings


def verify(folder: Path) -> float:
    """Return the seconds of ``cache verify``."""
    from cache.maintain.verify import verify_cache

    began = time.perf_counter()
    problems = [check.problem for check in verify_cache(folder) if check.problem]
    assert not problems, problems[0]
    return time.perf_counter() - began


def no_op(folder: Path, rows: int, classes: int) -> float:
    """Return the seconds of the build, without a teacher's and without a disk's, which has nothing to do."""
    raise NotImplementedError


if __name__ == "__main__":
    probe(sys.modules[__name__])  # type: ignore[arg-type]
