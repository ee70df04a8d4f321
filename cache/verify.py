"""Is a cache what its manifest says? Every checksum, every row count, every text bank."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cache.banks import load_bank
from cache.errors import UserError
from cache.files import sha256_of
from cache.manifest import Manifest
from cache.neighbours import check_neighbours
from cache.reader import TEACHERS, EmbeddingCache
from cache.shards import FORMATS, ShardRows


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """What was found of one file; ``problem`` is empty when it is sound."""

    file: str
    rows: int
    problem: str


def verify_cache(folder: Path, *, on_file: Callable[[str], None] = lambda file: None) -> list[Check]:
    """Check every file of a cache against its manifest.

    Raises
    ------
    UserError
        If there is no readable manifest.
    """
    manifest = Manifest.load(folder)
    checks: list[Check] = []
    for split, shard in manifest.shard_entries:
        on_file(shard.file)
        problem = _file_problem(folder / shard.file, shard.sha256) or _shard_problem(
            folder / shard.file, manifest, split, shard.rows
        )
        checks.append(Check(file=shard.file, rows=shard.rows, problem=problem))
    for name, bank in manifest.banks.items():
        on_file(bank.file)
        path = folder / bank.file
        problem = _file_problem(path, bank.sha256) or _bank_problem(
            path, name, manifest.embed_dim, bank.texts
        )
        checks.append(Check(file=bank.file, rows=bank.texts, problem=problem))
    for shard in manifest.side_shards:
        on_file(shard.file)
        problem = _file_problem(folder / shard.file, shard.sha256)
        checks.append(Check(file=shard.file, rows=shard.rows, problem=problem))
    for file in manifest.text_tower:
        on_file(file.file)
        checks.append(Check(file=file.file, rows=0, problem=_file_problem(folder / file.file, file.sha256)))
    for path in sorted((folder / "neighbours").glob("*.h5")):
        checks.append(Check(file=f"neighbours/{path.name}", rows=0, problem=check_neighbours(path) or ""))
    if not manifest.complete:
        checks.append(Check(file="manifest.json", rows=0, problem="the build has not finished; run it again"))
    for name in EmbeddingCache(folder, manifest).teacher_names[1:]:
        where = f"{TEACHERS}/{name}"
        checks += [
            replace(c, file=f"{where}/{c.file}") for c in verify_cache(folder / where, on_file=on_file)
        ]
    return checks


def _file_problem(path: Path, sha256: str) -> str:
    if not path.is_file():
        return "missing"
    found = sha256_of(path)
    return "" if found == sha256 else f"checksum is {found[:12]}..., the manifest says {sha256[:12]}..."


def _shard_problem(path: Path, manifest: Manifest, split: str, expected: int) -> str:
    try:
        rows = FORMATS[manifest.spec.format].read(path)
    except UserError as error:
        return error.problem
    if rows.split != split:
        return f"holds rows of {rows.split}"
    if rows.image_embedding.shape != (expected, manifest.embed_dim):
        return f"holds {rows.image_embedding.shape}, the manifest says ({expected}, {manifest.embed_dim})"
    return _label_problem(rows, len(manifest.splits[split].class_names))


def _label_problem(rows: ShardRows, classes: int) -> str:
    if rows.labels.ndim == 2:
        good = rows.labels.shape[1] == classes and bool(np.isin(rows.labels, (0, 1)).all())
    else:
        good = not len(rows) or 0 <= rows.labels.min() <= rows.labels.max() < classes
    return "" if good else "holds labels of no class"


def _bank_problem(path: Path, name: str, embed_dim: int, texts: int) -> str:
    try:
        bank = load_bank(path, name)
    except UserError as error:
        return error.problem
    if bank.embeddings.shape != (texts, embed_dim):
        return f"holds {bank.embeddings.shape}, the manifest says ({texts}, {embed_dim})"
    return ""
