"""Shards beside the image shards: more about the same images, added to a cache when it is asked for.

Which images a shard holds, and how it was made, is in the manifest as a digest, so that a build that is
killed or repeated redoes only what is missing or no longer fits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import h5py

from cache.runtime.atomic_files import digest, replacing, sha256_of
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from cache.sources.samples import Record, RecordFolder
from cache.store.hdf5_columns import has_sums, read_strings
from cache.store.manifest import Manifest
from cache.store.manifest_lines import CropsEntry, PixelsEntry, ShardEntry, ViewsEntry
from cache.store.read_errors import check_size, damaged_shard
from cache.store.shard_formats import read_shard

Entry = PixelsEntry | ViewsEntry | CropsEntry
Chunk = list[tuple[Record, str]]


@dataclass(frozen=True, kw_only=True)
class SideShards:
    """One kind: its ``field`` of the manifest and folder of the cache, an entry without shards, what made it.

    ``write`` puts the images of one shard into a file. ``shots`` takes the first images of each class alone.
    """

    field: str
    empty: Entry
    splits: tuple[str, ...]
    made_by: Sequence[Any]
    images_per_shard: int
    write: Callable[[Path, Sequence[Record]], None]
    shots: int = 0


@contextmanager
def open_side_shard(cache: Path, shard: ShardEntry) -> Iterator[h5py.File]:
    """Open a shard that the manifest lists; what reading it raises is a UserError that says it is damaged."""
    path = cache / shard.file
    with damaged_shard(path):
        check_size(path, shard.bytes)
        with h5py.File(path, "r") as file:
            if not has_sums(file) and sha256_of(path) != shard.sha256:
                raise ValueError("its checksum is not the manifest's")
            yield file


def drop_stale_shards(
    manifest: Manifest, out: Path, field: str, made_by: Callable[[Any], Sequence[Any]]
) -> Manifest:
    """Return the manifest less the shards of a kind that are of other images than the rows are, or damaged.

    ``made_by`` says of an entry what made it beside the images. Training on those shards would be wrong.
    """
    for name, entry in getattr(manifest, field).items():
        hashes = _hashes(manifest, out, name) if entry.shards else {}
        kept = [
            (shard, made_from)
            for shard, made_from in zip(entry.shards, entry.made_from, strict=True)
            if _is_of(out, shard, made_from, hashes, made_by(entry))
        ]
        if len(kept) < len(entry.shards):
            less = replace(
                entry, shards=tuple(s for s, _ in kept), made_from=tuple(made_from for _, made_from in kept)
            )
            manifest = _with_entry(manifest, name, less, field)
            manifest.save(out)
    return manifest


def _is_of(
    out: Path, shard: ShardEntry, made_from: str, hashes: Mapping[str, str], made_by: Sequence[Any]
) -> bool:
    try:
        with open_side_shard(out, shard) as file:
            keys = read_strings(file, "key")
    except UserError:
        return False
    return made_from == digest([[[key, hashes.get(key, "")] for key in keys], *made_by])


def _hashes(manifest: Manifest, out: Path, split: str) -> dict[str, str]:
    """Return the hash of the file of every image of a split that has a row, by key."""
    hashes: dict[str, str] = {}
    for shard in manifest.splits[split].shards if split in manifest.splits else ():
        rows = read_shard(out, shard, manifest, split)
        hashes.update(zip(rows.keys, rows.file_sha256, strict=True))
    return hashes


def write_side_shards(
    manifest: Manifest, out: Path, folder: RecordFolder, kind: SideShards, progress: Progress
) -> Manifest:
    """Make the shards of a kind that are missing, for the images that have a row; return the new manifest."""
    plans = {name: _plan(manifest, out, folder, name, kind) for name in kind.splits if name in folder.splits}
    for name, chunks in plans.items():
        manifest = _keep_sound(manifest, out, name, chunks, kind)
    missing = [
        (name, chunk)
        for name, chunks in plans.items()
        for chunk in chunks
        if _made_from(chunk, kind) not in getattr(manifest, kind.field)[name].made_from
    ]
    progress.start(sum(len(chunk) for _, chunk in missing))
    for name, chunk in missing:
        known = getattr(manifest, kind.field)[name]
        file = _free_name(name, known, kind)
        with replacing(out / file) as temporary:
            kind.write(temporary, [record for record, _ in chunk])
        entry = ShardEntry(
            file=file, rows=len(chunk), bytes=(out / file).stat().st_size, sha256=sha256_of(out / file)
        )
        known = replace(
            known, shards=(*known.shards, entry), made_from=(*known.made_from, _made_from(chunk, kind))
        )
        manifest = _with_entry(manifest, name, known, kind.field)
        manifest.save(out)
    return manifest


def _with_entry(manifest: Manifest, name: str, entry: Entry, field: str) -> Manifest:
    changed: dict[str, Any] = {field: {**getattr(manifest, field), name: entry}}
    return replace(manifest, **changed)


def _free_name(split: str, entry: Entry, kind: SideShards) -> str:
    numbers = [int(Path(shard.file).stem.rpartition("-")[2]) for shard in entry.shards]
    return f"{kind.field}/{split}-{max(numbers, default=-1) + 1:05d}.h5"


def _plan(manifest: Manifest, out: Path, folder: RecordFolder, split: str, kind: SideShards) -> list[Chunk]:
    """Return the images of a split, with their file's hash, cut into shards."""
    hashes = _hashes(manifest, out, split)
    counts: dict[Any, int] = {}
    chosen: Chunk = []
    for record in folder.splits[split].images:
        if record.key not in hashes or (kind.shots and counts.get(record.label, 0) >= kind.shots):
            continue
        counts[record.label] = counts.get(record.label, 0) + 1
        chosen.append((record, hashes[record.key]))
    size = kind.images_per_shard
    return [chosen[start : start + size] for start in range(0, len(chosen), size)]


def _made_from(chunk: Chunk, kind: SideShards) -> str:
    return digest([[[record.key, file] for record, file in chunk], *kind.made_by])


def _keep_sound(
    manifest: Manifest, out: Path, split: str, chunks: Sequence[Chunk], kind: SideShards
) -> Manifest:
    """Return the manifest less the shards of other images, of another make, or with a damaged file."""
    wanted = {_made_from(chunk, kind) for chunk in chunks}
    known = getattr(manifest, kind.field).get(split, kind.empty)
    kept = [
        (shard, made_from)
        for shard, made_from in zip(known.shards, known.made_from, strict=True)
        if made_from in wanted
        and (out / shard.file).is_file()
        and sha256_of(out / shard.file) == shard.sha256
    ]
    entry = replace(
        kind.empty,
        shards=tuple(shard for shard, _ in kept),
        made_from=tuple(made_from for _, made_from in kept),
    )
    manifest = _with_entry(manifest, split, entry, kind.field)
    manifest.save(out)
    return manifest
