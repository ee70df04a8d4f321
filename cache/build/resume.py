"""What is left to do: which images of a folder already have rows, and which shards are still to be made."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache.build.embed_images import ShardPlan
from cache.changed_images import looks_the_same
from cache.runtime.errors import CacheMismatch, some_of
from cache.sources.samples import DataFolder, Sample, Source
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedShard, ListedSplit
from cache.store.shard_formats import FORMATS, read_shard
from cache.store.shard_rows import ShardRows


def match_classes(manifest: Manifest, folder: DataFolder, *, rebuild: bool) -> Manifest:
    """Return a manifest whose splits have the folder's classes.

    Raises
    ------
    CacheMismatch
        If a split's class folders have changed, which would relabel rows, and ``rebuild`` is off.
    """
    gone = [name for name in manifest.splits if name not in folder.splits]
    if gone and not rebuild:
        raise CacheMismatch(
            f"the cache holds the split {gone[0]}, but {folder.path} has no such folder any more",
            fix="bring the folder back, or use --rebuild to drop its rows.",
        )
    manifest = replace(manifest, splits={n: s for n, s in manifest.splits.items() if n not in gone})
    for name, split in folder.splits.items():
        before = manifest.splits.get(name)
        if before is not None and before.class_names != split.classes and not rebuild:
            raise CacheMismatch(
                f"the class folders of {name} changed ({_changes(before.class_names, split.classes)})",
                fix="bring them back, or use --rebuild to embed that split again.",
            )
        if before is None or before.class_names != split.classes:
            manifest = manifest.with_split(name, ListedSplit(class_names=split.classes))
    return manifest


def _changes(old: Sequence[str], new: Sequence[str]) -> str:
    added, gone = sorted(set(new) - set(old)), sorted(set(old) - set(new))
    parts = [f"added: {some_of(added, 5)}"] if added else []
    return "; ".join(parts + ([f"gone: {some_of(gone, 5)}"] if gone else []))


def plan_split(
    cache: Path, manifest: Manifest, split: Source, *, rebuild: bool
) -> tuple[Manifest, list[ShardPlan]]:
    """Return the manifest less what is out of date, and the shards that are still to be made.

    Images without a row become new shards, cut in key order; an unreadable image is tried again only
    when its file has changed.

    Raises
    ------
    CacheMismatch
        If images that have rows were changed or removed, and ``rebuild`` is off.
    """
    entry = manifest.splits[split.split]
    samples = {sample.key: sample for sample in split.all()}
    done: set[str] = set()
    stale: list[ListedShard] = []
    complaints: list[str] = []
    for shard in entry.shards:
        if not shard.is_sound(cache):  # it is made again, so the same command also mends a cache
            stale.append(shard)
            continue
        rows = read_shard(cache, shard, manifest, split.split)
        wrong = _out_of_date(rows, samples)
        complaints += wrong
        if wrong:
            stale.append(shard)
        else:
            done.update(rows.keys)
    if complaints and not rebuild:
        raise CacheMismatch(
            f"{len(complaints)} images of {split.split} are not what the cache holds: "
            f"{some_of(complaints, 5)}",
            fix="bring them back, or use --rebuild to embed the shards they are in again.",
        )
    kept = replace(
        entry,
        shards=tuple(shard for shard in entry.shards if shard not in stale),
        skipped=tuple(
            image
            for image in entry.skipped
            if image.key in samples and looks_the_same(samples[image.key], image.bytes, image.mtime_ns)
        ),
    )
    done.update(image.key for image in kept.skipped)
    missing = [sample for sample in split.all() if sample.key not in done]
    return manifest.with_split(split.split, kept), _cut(missing, kept, manifest, split)


def _out_of_date(rows: ShardRows, samples: dict[str, Sample]) -> list[str]:
    wrong = []
    for i, key in enumerate(rows.keys):
        if key not in samples:
            wrong.append(f"{key} (removed)")
        elif not looks_the_same(samples[key], int(rows.file_bytes[i]), int(rows.file_mtime_ns[i])) and (
            samples[key].identity()[0] != rows.file_sha256[i]
        ):
            wrong.append(f"{key} (changed)")
    return wrong


def _cut(missing: Sequence[Sample], entry: ListedSplit, manifest: Manifest, split: Source) -> list[ShardPlan]:
    size, ending = manifest.spec.rows_per_shard, FORMATS[manifest.spec.format].ENDING
    # The lowest that no listed shard has: what is redone gets its place back, and takes nobody's.
    taken = {int(Path(shard.file).stem.rpartition("-")[2]) for shard in entry.shards}
    free = (number for number in itertools.count() if number not in taken)
    return [
        ShardPlan(
            split=split.split,
            class_names=split.classes,
            multi_label=split.multi_label,
            file=f"images/{split.split}-{next(free):05d}.{ending}",
            images=tuple(missing[start : start + size]),
        )
        for start in range(0, len(missing), size)
    ]
