"""Shards beside the image shards: more about the same images, added to a cache when it is asked for.

Which images a shard holds, and how it was made, is in the manifest as a digest, so that a build that is
killed or repeated redoes only what is missing or no longer fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import h5py

from cache.runtime.atomic_files import digest, replacing
from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.runtime.progress import Progress
from cache.sources.samples import DataFolder, Sample
from cache.store.hdf5_columns import read_strings
from cache.store.manifest import Manifest
from cache.store.manifest_lines import COLUMNS, ListedColumn, ListedShard
from cache.store.read_errors import check_size, reading
from cache.store.shard_formats import read_shard

Chunk = list[tuple[Sample, str]]


@dataclass(frozen=True, kw_only=True)
class ColumnPlan:
    """A column to be made: its ``name`` as a field of the manifest and a folder, and it without shards.

    ``write`` puts the images of one shard into a file. ``shots`` takes the first images of each class alone.
    """

    name: str
    empty: ListedColumn
    splits: tuple[str, ...]
    images_per_shard: int
    write: Callable[[Path, Sequence[Sample]], None]
    shots: int = 0

    def in_manifest(self, manifest: Manifest, split: str) -> ListedColumn:
        """Return what a manifest lists of the column for a split."""
        listed: ListedColumn = getattr(manifest, self.name).get(split, self.empty)
        return listed

    def made_from(self, chunk: Chunk) -> str:
        """Return the digest of a shard's images and of how it is made."""
        return digest([[[sample.key, file] for sample, file in chunk], *self.empty.settings])


@contextmanager
def open_column_shard(cache: Path, shard: ListedShard) -> Iterator[h5py.File]:
    """Open a shard that the manifest lists; what reading it raises is a UserError that says it is damaged."""
    path = cache / shard.file
    with reading(path):
        check_size(path, shard.bytes)
        with open_hdf5(path) as file:
            yield file


def drop_stale_shards(manifest: Manifest, out: Path) -> Manifest:
    """Return the manifest less the column shards that are of other images than the rows are, or damaged.

    Training on those would be wrong.
    """
    for name in COLUMNS:
        for split, column in getattr(manifest, name).items():
            hashes = _hashes(manifest, out, split) if column.shards else {}
            kept = column.keeping(partial(_is_of, out, column, hashes))
            if kept != column:
                manifest = _with_column(manifest, name, split, kept)
                manifest.save(out)
    return manifest


def _is_of(
    out: Path, column: ListedColumn, hashes: Mapping[str, str], shard: ListedShard, made_from: str
) -> bool:
    try:
        with open_column_shard(out, shard) as file:
            keys = read_strings(file, "key")
    except UserError:
        return False
    return made_from == digest([[[key, hashes.get(key, "")] for key in keys], *column.settings])


def _hashes(manifest: Manifest, out: Path, split: str) -> dict[str, str]:
    """Return the hash of the file of every image of a split that has a row, by key."""
    hashes: dict[str, str] = {}
    for shard in manifest.splits[split].shards if split in manifest.splits else ():
        rows = read_shard(out, shard, manifest, split)
        hashes.update(zip(rows.keys, rows.file_sha256, strict=True))
    return hashes


def write_column_shards(
    manifest: Manifest, out: Path, folder: DataFolder, plan: ColumnPlan, progress: Progress
) -> Manifest:
    """Make the shards of a column that are missing, of images that have a row; return the new manifest."""
    chunks_of = {
        name: _chunks(manifest, out, folder, name, plan) for name in plan.splits if name in folder.splits
    }
    for split, chunks in chunks_of.items():
        manifest = _keep_sound(manifest, out, split, chunks, plan)
    missing = [
        (split, chunk)
        for split, chunks in chunks_of.items()
        for chunk in chunks
        if plan.made_from(chunk) not in plan.in_manifest(manifest, split).made_from
    ]
    progress.start(sum(len(chunk) for _, chunk in missing))
    for split, chunk in missing:
        column = plan.in_manifest(manifest, split)
        file = _free_name(split, column, plan)
        with replacing(out / file) as temporary:
            plan.write(temporary, [sample for sample, _ in chunk])
        shards = (*column.shards, ListedShard.of(out, file, rows=len(chunk)))
        column = replace(column, shards=shards, made_from=(*column.made_from, plan.made_from(chunk)))
        manifest = _with_column(manifest, plan.name, split, column)
        manifest.save(out)
    return manifest


def _with_column(manifest: Manifest, name: str, split: str, column: ListedColumn) -> Manifest:
    changed: dict[str, Any] = {name: {**getattr(manifest, name), split: column}}
    return replace(manifest, **changed)


def _free_name(split: str, column: ListedColumn, plan: ColumnPlan) -> str:
    numbers = [int(Path(shard.file).stem.rpartition("-")[2]) for shard in column.shards]
    return f"{plan.name}/{split}-{max(numbers, default=-1) + 1:05d}.h5"


def _chunks(manifest: Manifest, out: Path, folder: DataFolder, split: str, plan: ColumnPlan) -> list[Chunk]:
    """Return the images of a split, with their file's hash, cut into shards."""
    hashes = _hashes(manifest, out, split)
    counts: dict[Any, int] = {}
    chosen: Chunk = []
    for sample in folder.splits[split].all():
        if sample.key not in hashes or (plan.shots and counts.get(sample.labels, 0) >= plan.shots):
            continue
        counts[sample.labels] = counts.get(sample.labels, 0) + 1
        chosen.append((sample, hashes[sample.key]))
    size = plan.images_per_shard
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


def _keep_sound(
    manifest: Manifest, out: Path, split: str, chunks: Sequence[Chunk], plan: ColumnPlan
) -> Manifest:
    """Return the manifest less the shards of other images, of another make, or with a damaged file."""
    wanted = {plan.made_from(chunk) for chunk in chunks}
    kept = plan.in_manifest(manifest, split).keeping(
        lambda shard, made: made in wanted and shard.is_sound(out)
    )
    column = replace(plan.empty, shards=kept.shards, made_from=kept.made_from)
    manifest = _with_column(manifest, plan.name, split, column)
    manifest.save(out)
    return manifest
