"""Embedded shards -> files and the manifest's lines for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from cache.build.captions import Captions
from cache.build.embed_images import EmbeddedShard
from cache.build.options import Build
from cache.runtime.atomic_files import replacing
from cache.runtime.progress import Progress
from cache.sources.image_folder import ImageSample
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedShard, SkippedImage
from cache.store.shard_formats import FORMATS, read_shard
from cache.store.shard_rows import ShardRows
from cache.teacher.open_clip_model import Teacher


def write_shard(
    out: Path,
    file: str,
    rows: ShardRows,
    format: str,
    *,
    images: Sequence[Path] | None = None,
    about: Mapping[str, Any] | None = None,
) -> ListedShard:
    """Write one shard, whole or not at all, and return the manifest's line for it with more ``about`` it.

    Raises
    ------
    UserError
        If the file cannot be written.
    """
    with replacing(out / file) as temporary:
        FORMATS[format].write(temporary, rows, images)
    return ListedShard.of(out, file, rows=len(rows), **(about or {}))


def write_embedded(
    out: Path, shard: EmbeddedShard, rows: ShardRows | None, format: str, about: Mapping[str, Any]
) -> ListedShard | None:
    """Write an embedded shard's rows; see :func:`write_shard`. None where no image of it could be read."""
    if rows is None:
        return None
    # An episode's file holds many rows: only photos are files that a row can carry.
    photos = [sample.path for sample in shard.samples if isinstance(sample, ImageSample)]
    return write_shard(out, shard.plan.file, rows, format, images=photos or None, about=about)


def note_skipped(progress: Progress, split: str, skipped: Sequence[SkippedImage]) -> None:
    """Say which images of a split were skipped, and why."""
    for image in skipped:
        progress.note(f"skipped {split}/{image.key}: {image.reason}")


def with_written(
    manifest: Manifest, split: str, entry: ListedShard | None, skipped: Sequence[SkippedImage]
) -> Manifest:
    """Return a manifest that lists a shard, where there is one, and the images that are not in it."""
    manifest = manifest.with_skipped(split, skipped)
    return manifest if entry is None else manifest.with_shard(split, entry)


Rows = TypeVar("Rows", ShardRows, ShardRows | None)


def with_captions(rows: Rows, captions: Captions | None, teacher: Teacher) -> tuple[Rows, dict[str, Any]]:
    """Return rows with their captions, and what the manifest says of these."""
    if captions is None or rows is None:
        return rows, {}
    captioned, missing, truncated = captions.added_to(rows, teacher)
    about = {
        "captions_sha256": captions.sha256,
        "captions_missing": missing,
        "captions_truncated": truncated,
    }
    return captioned, about


def replace_captions(manifest: Manifest, build: Build, captions: Captions) -> Manifest:
    """Give finished shards the captions of this run; the images are not embedded again."""
    out = build.out
    had = [s for _, s in manifest.listed_shards if s.captions_sha256 not in ("", captions.sha256)]
    before = sum(split.own_captions for split in manifest.splits.values())
    if had:
        build.progress.note(
            f"{captions.source} is not what {out} was made with: the captions of "
            f"{sum(shard.rows for shard in had):,} images are replaced"
        )
    for split, shard in manifest.listed_shards:
        if shard.captions_sha256 == captions.sha256:
            continue
        # Loaded, because the file that it is mapped from is about to be replaced.
        rows = read_shard(out, shard, manifest, split).loaded()
        where = {sample.key: sample.path for sample in build.folder.splits[split].all()}
        images = [where[key] for key in rows.keys]
        rows, about = with_captions(rows, captions, build.teacher)
        entry = write_shard(out, shard.file, rows, manifest.spec.format, images=images, about=about)
        manifest = manifest.with_shard(split, entry)
        manifest.save(out)
    lost = before - sum(split.own_captions for split in manifest.splits.values())
    if had and lost > 0:
        build.progress.note(f"{lost:,} images had a caption of their own, and have none in it")
    return manifest
