"""Embedded shards -> files and the manifest's lines for them, written beside the embedding of the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from cache.build.captions import Captions
from cache.build.embed_images import EmbeddedShard, Seconds
from cache.runtime.atomic_files import replacing
from cache.runtime.progress import Progress
from cache.sources.image_folder import ImageRecord
from cache.sources.samples import RecordFolder
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


@dataclass(frozen=True, kw_only=True)
class ShardWriter:
    """Writes embedded shards of the cache ``out``; ``save`` keeps the manifest that lists them."""

    out: Path
    teacher: Teacher
    captions: Captions | None
    save: Callable[[Manifest], None]
    note: Callable[[str], None]

    def write_all(self, shards: Iterable[EmbeddedShard], manifest: Manifest, seconds: Seconds) -> Manifest:
        """Write every shard and return the manifest that lists them, saved after each.

        A thread writes one shard while the teacher embeds the next; what that costs is the wait for it.
        """
        writing: Future[Manifest] | None = None
        with ThreadPoolExecutor(1) as thread:
            for shard in shards:
                for image in shard.skipped:
                    self.note(skipped_note(shard.plan.split, image))
                rows, about = with_captions(shard.rows(manifest.spec.dtype), self.captions, self.teacher)
                manifest = _waited_for(writing, manifest, seconds)
                writing = thread.submit(self._listed, manifest, shard, rows, about)
            return _waited_for(writing, manifest, seconds)

    def _listed(
        self, manifest: Manifest, shard: EmbeddedShard, rows: ShardRows | None, about: dict[str, Any]
    ) -> Manifest:
        manifest = manifest.with_skipped(shard.plan.split, shard.skipped)
        entry = write_embedded(self.out, shard, rows, manifest.spec.format, about)
        if entry is not None:
            manifest = manifest.with_shard(shard.plan.split, entry)
        self.save(manifest)
        return manifest


def write_embedded(
    out: Path, shard: EmbeddedShard, rows: ShardRows | None, format: str, about: Mapping[str, Any]
) -> ListedShard | None:
    """Write an embedded shard's rows; see :func:`write_shard`. None where no image of it could be read."""
    if rows is None:
        return None
    # An episode's file holds many rows: only photos are files that a row can carry.
    photos = [record.path for record in shard.records if isinstance(record, ImageRecord)]
    return write_shard(out, shard.plan.file, rows, format, images=photos or None, about=about)


def skipped_note(split: str, image: SkippedImage) -> str:
    """Say which image was skipped, and why."""
    return f"skipped {split}/{image.key}: {image.reason}"


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


def _waited_for(writing: Future[Manifest] | None, manifest: Manifest, seconds: Seconds) -> Manifest:
    if writing is None:
        return manifest
    start = time.perf_counter()
    try:
        return writing.result()
    finally:
        seconds.writing += time.perf_counter() - start


def replace_captions(
    manifest: Manifest,
    out: Path,
    teacher: Teacher,
    captions: Captions,
    folder: RecordFolder,
    progress: Progress,
) -> Manifest:
    """Give finished shards the captions of this run; the images are not embedded again."""
    had = [s for _, s in manifest.listed_shards if s.captions_sha256 not in ("", captions.sha256)]
    before = sum(split.own_captions for split in manifest.splits.values())
    if had:
        progress.note(
            f"{captions.source} is not what {out} was made with: the captions of "
            f"{sum(shard.rows for shard in had):,} images are replaced"
        )
    for split, shard in manifest.listed_shards:
        if shard.captions_sha256 == captions.sha256:
            continue
        # Loaded, because the file that it is mapped from is about to be replaced.
        rows = read_shard(out, shard, manifest, split).loaded()
        where = {record.key: record.path for record in folder.splits[split].images}
        images = [where[key] for key in rows.keys]
        rows, about = with_captions(rows, captions, teacher)
        entry = write_shard(out, shard.file, rows, manifest.spec.format, images=images, about=about)
        manifest = manifest.with_shard(split, entry)
        manifest.save(out)
    lost = before - sum(split.own_captions for split in manifest.splits.values())
    if had and lost > 0:
        progress.note(f"{lost:,} images had a caption of their own, and have none in it")
    return manifest
