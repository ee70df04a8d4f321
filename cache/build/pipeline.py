"""The stage-1 run: plan, skip finished shards, embed, write, list. Kill it anywhere and run it again."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cache.build.crop_views import write_crop_views
from cache.build.distinct_texts import check_positions, positions_note
from cache.build.embed_images import EmbeddedShard, Seconds, ShardPlan, embed_shards
from cache.build.options import Build
from cache.build.pixels import write_pixels
from cache.build.resume import match_classes, plan_split
from cache.build.shard_writer import (
    note_skipped,
    replace_captions,
    with_captions,
    with_written,
    write_embedded,
)
from cache.build.summary import BuildSummary, summarize
from cache.build.support_views import write_support_views
from cache.build.text_banks import check_banks, check_same_texts, write_banks
from cache.reader import EmbeddingCache
from cache.runtime.atomic_files import check_own_folders, is_leftover, remove_temporaries
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.locks import only_writer
from cache.sources.image_folder import ImageFolder
from cache.store.column_shards import drop_stale_shards
from cache.store.manifest import NAME, Manifest
from cache.store.manifest_lines import COLUMNS, PixelsColumn
from cache.store.rank_manifests import folder_of_rank, join_ranks
from cache.store.shard_rows import ShardRows
from cache.store.spec import CacheSpec
from cache.teacher.text_network import text_network_of
from cache.teacher.text_tower import FOLDER as TEXT_TOWER
from cache.teacher.text_tower import save_text_tower


def open_manifest(
    out: Path,
    spec: CacheSpec,
    embed_dim: int,
    *,
    rebuild: bool,
    replaced_by: str = "use --rebuild to replace it",
) -> Manifest:
    """Return the manifest of a cache to be continued, or a new one.

    ``replaced_by`` says how a cache of another make gives way to this one.

    Raises
    ------
    CacheMismatch
        If ``out`` holds a cache of another teacher, preprocessing, dtype or format.
    UserError
        If ``out`` is a folder of something else, or a folder of the cache is a link.
    """
    fresh = Manifest(spec=spec, embed_dim=embed_dim, versions=_versions())
    if not (out / NAME).exists():
        if out.is_file() or (out.is_dir() and not all(map(is_leftover, out.iterdir()))):
            raise UserError(
                f"{out} exists and is not a cache", fix="choose a new folder for --out, or empty this one."
            )
        return fresh
    check_own_folders(out)
    before = Manifest.load(out)
    differences = before.spec.differences(spec)
    if not differences:
        return before
    if rebuild:
        return fresh
    raise CacheMismatch(
        f"{out} is a cache of another make ({'; '.join(differences)})",
        fix=f"choose another --out, or {replaced_by}.",
    )


# Makes planned shards, and returns the manifest that lists them, saved after each.
Embed = Callable[[Build, Manifest, Sequence[ShardPlan], Seconds], Manifest]


def embed_here(build: Build, manifest: Manifest, plans: Sequence[ShardPlan], seconds: Seconds) -> Manifest:
    """Make this rank's share of the shards; each rank keeps a manifest of its own, which the first joins.

    A thread writes one shard while the teacher embeds the next; what that costs is the wait for it.
    """
    ranks, options, progress = build.ranks, build.options, build.progress
    mine = plans[ranks.rank :: ranks.world]
    progress.start(sum(len(plan.images) for plan in mine))
    shards = embed_shards(
        build.teacher,
        mine,
        batch_size=options.batch_size or 1,
        workers=options.workers or 0,
        strict=options.strict,
        regions=manifest.spec.regions,
        seconds=seconds,
        on_images=progress.advance,
    )
    keep_in = build.out if ranks.is_first else folder_of_rank(build.out, ranks.rank)

    def write(
        manifest: Manifest, shard: EmbeddedShard, rows: ShardRows | None, about: dict[str, Any]
    ) -> Manifest:
        entry = write_embedded(build.out, shard, rows, manifest.spec.format, about)
        manifest = with_written(manifest, shard.plan.split, entry, shard.skipped)
        manifest.save(keep_in)
        return manifest

    writing: Future[Manifest] = Future()
    writing.set_result(manifest)
    with ThreadPoolExecutor(1) as thread:
        for shard in shards:
            note_skipped(progress, shard.plan.split, shard.skipped)
            rows, about = with_captions(shard.rows(manifest.spec.dtype), build.captions, build.teacher)
            writing = thread.submit(write, _waited_for(writing, seconds), shard, rows, about)
        return _waited_for(writing, seconds)


def _waited_for(writing: Future[Manifest], seconds: Seconds) -> Manifest:
    start = time.perf_counter()
    try:
        return writing.result()
    finally:
        seconds.writing += time.perf_counter() - start


def build_cache(build: Build, embed: Embed = embed_here) -> BuildSummary:
    """Embed a folder with a teacher into a cache, continuing what is there.

    Every shard is written beside its name and renamed, and only then listed in the manifest; so a
    build that is killed loses at most the shard it was on, and the one that was being written.

    Raises
    ------
    UserError
        If the output cannot be written, belongs to another teacher, or (see :mod:`cache.build.resume`) images
        with rows were changed.
    """
    began, seconds, ranks = time.perf_counter(), Seconds(), build.ranks
    with only_writer(build.out) if ranks.is_first else nullcontext():
        manifest, plans = ranks.from_first(_prepare(build) if ranks.is_first else None)  # type: ignore[misc]
        before, embedding = manifest.rows, time.perf_counter()
        manifest = embed(build, manifest, plans, seconds)
        ranks.wait()
        embedding = time.perf_counter() - embedding
        finished = _finish(build, manifest) if ranks.is_first else manifest
        manifest = ranks.from_first(finished)
    total = time.perf_counter() - began
    return summarize(build, manifest, before=before, embedding=embedding, seconds=seconds, total=total)


def _prepare(build: Build) -> tuple[Manifest, list[ShardPlan]]:
    """Return the manifest with its text banks, and the shards that are still to be made."""
    out, options = build.out, build.options
    check_positions(out, build.banks)
    check_banks(build.banks, build.folder, build.teacher, shared_classes=options.shared_classes)
    manifest = open_manifest(out, build.spec, build.teacher.embed_dim, rebuild=options.rebuild)
    remove_temporaries(out, below=True)
    manifest = join_ranks(manifest, out)
    manifest = match_classes(manifest, build.folder, rebuild=options.rebuild)
    if not options.rebuild:
        check_same_texts(manifest, out, build.banks)
    plans: list[ShardPlan] = []
    for split in build.folder.splits.values():
        manifest, planned = plan_split(out, manifest, split, rebuild=options.rebuild)
        plans += planned
    manifest = replace(manifest, complete=manifest.complete and not plans, command=build.command)
    manifest.save(out)
    remove_unlisted(out, manifest)
    manifest = write_banks(manifest, out, build.teacher, build.banks)
    for bank in build.banks:
        if bank.lines:
            build.progress.note(positions_note(bank))
    return manifest, plans


def _finish(build: Build, manifest: Manifest) -> Manifest:
    """Add what there is one of to the shards that all ranks made, and say that the cache is complete."""
    manifest = join_ranks(manifest, build.out)
    if build.captions:
        manifest = replace_captions(manifest, build, build.captions)
    if not manifest.rows:
        raise UserError(
            f"no image of {build.folder.path} could be read", fix="check that the files are images."
        )
    manifest = _write_additions(build, manifest)
    manifest = replace(manifest, complete=True)
    manifest.save(build.out)
    remove_unlisted(build.out, manifest)
    cache = EmbeddingCache(build.out, manifest)
    for bank in build.banks:
        if build.options.neighbours and all(bank.classes):
            for split in cache.split_names:
                cache.neighbours(split, bank.name, build.options.neighbours)
    return manifest


def _write_additions(build: Build, manifest: Manifest) -> Manifest:
    """Add what only some uses need: views for retrieval and training, pixels, the text tower for prompts.

    What an earlier command added stays where it is of the images that the rows are of.
    """
    out, options = build.out, build.options
    manifest = drop_stale_shards(manifest, out)
    if isinstance(build.folder, ImageFolder):
        if options.support_views:
            manifest = write_support_views(manifest, build)
        if options.views:
            manifest = write_crop_views(manifest, build)
        if options.pixels:
            column = PixelsColumn(side=options.pixels, encoding=options.pixels_format)
            manifest = write_pixels(
                manifest, out, build.folder, column, build.progress, workers=options.workers or 0
            )
    kept = bool(manifest.text_tower) and all(file.is_sound(out) for file in manifest.text_tower)
    if options.keep_text_tower and not kept:
        manifest = replace(manifest, text_tower=save_text_tower(out, *text_network_of(build.teacher)))
        manifest.save(out)
    return manifest


def _versions() -> dict[str, str]:
    names = ("distill", "torch", "open_clip_torch", "faiss-cpu", "h5py", "numpy", "pillow", "webdataset")
    versions = {"python": platform.python_version()}
    for name in names:
        try:
            versions[name] = version(name)
        except ModuleNotFoundError:  # faiss-gpu instead of faiss-cpu, or distill run from its folder
            continue
    return versions


def remove_unlisted(out: Path, manifest: Manifest) -> None:
    """Remove the files that no line of the manifest lists: what a kill or a rebuild left behind."""
    listed = {shard.file for _, shard in manifest.listed_shards}
    listed |= {shard.file for shard in manifest.column_shards}
    listed |= {file.file for file in manifest.text_tower}
    for folder in ("images", *COLUMNS, TEXT_TOWER):
        for file in (out / folder).glob("*"):
            if f"{folder}/{file.name}" not in listed:
                file.unlink()
