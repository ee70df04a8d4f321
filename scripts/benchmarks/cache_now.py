"""Row groups of column files, as a build writes them and training reads them."""

from __future__ import annotations

import sys
import time
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.cache_probe import probe, random_block
from cache import EmbeddingCache

SPLIT = "train"


def _spec() -> Any:
    from cache.store.spec import CacheSpec, TeacherSpec

    kinds = {"tuple": (), "int": 0, "str": "random", "dict": {}}
    given = {f.name: kinds[str(f.type).partition("[")[0]] for f in fields(TeacherSpec)}
    return CacheSpec(teacher=TeacherSpec(**given))


def _source(rows: int, classes: int) -> Any:
    from cache.sources.synthetic import SyntheticSource

    return SyntheticSource(SPLIT, rows=rows, classes=classes)


def make(folder: Path, rows: int, classes: int, embed_dim: int) -> None:
    """Write a row group a chunk, the index, and the manifest."""
    from cache.store.journal import Journal, JournalWriter
    from cache.store.key_index import KeyIndex
    from cache.store.manifest import Manifest
    from cache.store.row_group import GroupKeys, KeysFile, claim_group, write_group

    folder.mkdir(parents=True)
    source, writer = _source(rows, classes), JournalWriter(folder)
    for number, chunk in enumerate(source.chunks()):
        listed = list(source.list(chunk.id))
        count = len(listed)
        keys = GroupKeys(
            split=SPLIT,
            keys=[one.key for one in listed],
            labels=[one.labels for one in listed],
            content=np.random.default_rng(number).integers(0, 256, (count, 32), dtype=np.uint8),
            bytes=np.array([one.bytes for one in listed]),
            mtime_ns=np.array([one.mtime_ns for one in listed]),
        )
        columns = {"image_embedding": {"embedding": random_block(number, count, embed_dim)}}
        writer.add(*write_group(folder, claim_group(folder, SPLIT), keys, columns))
    groups = Journal.load(folder).groups(SPLIT)
    KeyIndex.of(groups, lambda group: KeysFile(folder, group.keys)).save(folder, SPLIT, groups)
    splits = {SPLIT: source.classes}
    Manifest(spec=_spec(), embed_dim=embed_dim, splits=splits, complete=True).save(folder)


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


def no_op(folder: Path, rows: int, classes: int) -> dict[str, float]:
    """Return the seconds of builds that have nothing to do: one that lists every image, and the one after."""
    from cache.build.chunk_identities import forget_chunks
    from cache.build.embed_images import Seconds
    from cache.build.options import Build, BuildOptions
    from cache.build.pipeline import build_cache
    from cache.sources.samples import DataFolder
    from cache.store.manifest import Manifest

    manifest = Manifest.load(folder)
    build = Build(
        folder=DataFolder(path=Path("synthetic"), splits={SPLIT: _source(rows, classes)}),
        out=folder,
        teacher=SimpleNamespace(embed_dim=manifest.embed_dim, spec=manifest.spec.teacher),  # type: ignore[arg-type]
        spec=manifest.spec,
        options=BuildOptions(model=""),
    )
    forget_chunks(folder, [SPLIT])
    seconds = {}
    for name in ("listed anew", "no-op run"):
        began = time.perf_counter()
        summary = build_cache(build, lambda build, settings, plan: Seconds())
        seconds[name] = time.perf_counter() - began
        assert (summary.rows, summary.new_rows) == (rows, 0)
    return seconds


if __name__ == "__main__":
    probe(sys.modules[__name__])  # type: ignore[arg-type]
