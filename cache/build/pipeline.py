"""The stage-1 run: plan, skip finished shards, embed, write, seal. Kill it anywhere and run it again."""

from __future__ import annotations

import platform
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

from cache.build.captions import Captions
from cache.build.crop_views import TrainViewOptions, write_train_views
from cache.build.distinct_texts import check_positions, positions_note
from cache.build.embed_images import Seconds, ShardPlan
from cache.build.executors import Embedder, EmbedHere
from cache.build.pixels import PixelOptions, write_pixels
from cache.build.resume import match_classes, plan_split
from cache.build.shard_writer import with_captions, write_shard
from cache.build.support_views import ViewOptions, write_views
from cache.build.text_banks import check_banks, check_same_texts, sources_of, write_banks
from cache.build.zero_shot import ZeroShot, doubts, zero_shot
from cache.reader import EmbeddingCache
from cache.runtime.atomic_files import check_own_folders, is_leftover, remove_temporaries
from cache.runtime.distributed import Ranks
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.locks import only_writer
from cache.runtime.progress import Progress, Silent
from cache.sources.class_texts import BankTexts
from cache.sources.image_folder import ImageFolder
from cache.sources.samples import RecordFolder
from cache.store.column_shards import drop_stale_shards
from cache.store.duplicates import Duplicate, duplicates_of
from cache.store.manifest import COLUMNS, NAME, Manifest
from cache.store.manifest_lines import SkippedImage
from cache.store.rank_manifests import join_ranks
from cache.store.shard_formats import read_shard
from cache.store.spec import CacheSpec
from cache.teacher.open_clip_model import Teacher, text_network_of
from cache.teacher.text_tower import FOLDER as TEXT_TOWER
from cache.teacher.text_tower import save_text_tower


@dataclass(frozen=True, kw_only=True)
class BuildOptions:
    """How to run a build; nothing here changes a number in the cache."""

    batch_size: int = 64
    workers: int = 1
    strict: bool = False
    rebuild: bool = False
    neighbours: int = 256
    support_views: int = 0
    support_shots: int = 0
    views: TrainViewOptions | None = None
    keep_text_tower: bool = False
    pixels: PixelOptions | None = None
    shared_classes: bool = False


@dataclass(frozen=True, kw_only=True)
class BuildSummary:
    """What a build did.

    ``sources`` say of which file each text bank and the captions are; ``doubts`` are lines on what should be
    looked at.
    """

    rows: int
    new_rows: int
    bytes: int
    images_per_s: float
    seconds: Seconds
    total_seconds: float
    skipped: dict[str, SkippedImage] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    missing_captions: int = 0
    duplicates: list[Duplicate] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    zero_shot: list[ZeroShot] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


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
    found = Manifest.load(out)
    differences = found.spec.differences(spec)
    if not differences:
        return found
    if rebuild:
        return fresh
    raise CacheMismatch(
        f"{out} is a cache of another make ({'; '.join(differences)})",
        fix=f"choose another --out, or {replaced_by}.",
    )


def build_cache(
    folder: RecordFolder,
    out: Path,
    teacher: Teacher,
    spec: CacheSpec,
    *,
    banks: Sequence[BankTexts],
    captions: Captions | None = None,
    options: BuildOptions | None = None,
    progress: Progress | None = None,
    ranks: Ranks | None = None,
    embed: Embedder | None = None,
    command: str = "",
) -> BuildSummary:
    """Embed ``folder`` with ``teacher`` into the cache ``out``, continuing what is there.

    Every shard is written beside its name and renamed, and only then listed in the manifest; so a
    build that is killed loses at most the shard it was on, and the one that was being written.
    With several ranks each embeds its own shards; the first does what there is one of. ``embed`` makes the
    shards, this process unless given; ``command`` is what the manifest says of the command.

    Raises
    ------
    UserError
        If the output cannot be written, belongs to another teacher, or (see :mod:`cache.build.resume`) images
        with rows were changed.
    """
    options, progress, ranks = options or BuildOptions(), progress or Silent(), ranks or Ranks()
    embed = embed or EmbedHere(
        out=out,
        teacher=teacher,
        captions=captions,
        batch_size=options.batch_size,
        workers=options.workers,
        strict=options.strict,
        ranks=ranks,
    )
    began, seconds = time.perf_counter(), Seconds()
    with only_writer(out) if ranks.is_first else nullcontext():
        prepared = None
        if ranks.is_first:
            prepared = _prepare(folder, out, teacher, spec, banks, options, command)
            for bank in banks:
                if bank.lines:
                    progress.note(positions_note(bank))
        manifest, plans = ranks.from_first(prepared)  # type: ignore[misc]
        before, embedding = manifest.rows, time.perf_counter()
        manifest = embed(manifest, plans, progress=progress, seconds=seconds)
        ranks.wait()
        embedding = time.perf_counter() - embedding
        if ranks.is_first:
            manifest = join_ranks(manifest, out)
            manifest = _match_captions(manifest, out, teacher, captions, folder, progress)
            if not manifest.rows:
                raise UserError(
                    f"no image of {folder.path} could be read", fix="check that the files are images."
                )
            manifest = _write_extras(manifest, out, teacher, folder, options, progress)
            manifest = replace(manifest, complete=True)
            manifest.save(out)
            _remove_unlisted(out, manifest)
            _store_neighbours(out, manifest, banks, options.neighbours)
        manifest = ranks.from_first(manifest)
    summary = BuildSummary(
        rows=manifest.rows,
        new_rows=manifest.rows - before,
        bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        images_per_s=(manifest.rows - before) / embedding,
        seconds=seconds,
        total_seconds=time.perf_counter() - began,
        skipped={
            f"{n}/{image.key}": image for n, split in manifest.splits.items() for image in split.skipped
        },
        truncated=_truncated(manifest),
        missing_captions=sum(shard.captions_missing for _, shard in manifest.listed_shards),
        sources=sources_of(manifest, captions),
    )
    return _with_findings(summary, out, manifest, banks) if ranks.is_first else summary


def _with_findings(
    summary: BuildSummary, out: Path, manifest: Manifest, banks: Sequence[BankTexts]
) -> BuildSummary:
    cache, names = EmbeddingCache(out, manifest), [bank.name for bank in banks]
    judged = zero_shot(cache, names)
    return replace(
        summary,
        duplicates=duplicates_of(out, manifest),
        zero_shot=judged,
        doubts=doubts(cache, [bank.name for bank in banks if not bank.may_tie], judged),
    )


def _prepare(
    folder: RecordFolder,
    out: Path,
    teacher: Teacher,
    spec: CacheSpec,
    banks: Sequence[BankTexts],
    options: BuildOptions,
    command: str,
) -> tuple[Manifest, list[ShardPlan]]:
    """Return the manifest with its text banks, and the shards that are still to be made."""
    check_positions(out, banks)
    check_banks(banks, folder, teacher, shared_classes=options.shared_classes)
    manifest = open_manifest(out, spec, teacher.embed_dim, rebuild=options.rebuild)
    remove_temporaries(out, below=True)
    manifest = join_ranks(manifest, out)
    manifest = match_classes(manifest, folder, rebuild=options.rebuild)
    if not options.rebuild:
        check_same_texts(manifest, out, banks)
    plans: list[ShardPlan] = []
    for split in folder.splits.values():
        manifest, planned = plan_split(out, manifest, split, rebuild=options.rebuild)
        plans += planned
    manifest = replace(manifest, complete=manifest.complete and not plans, command=command)
    manifest.save(out)
    _remove_unlisted(out, manifest)
    return write_banks(manifest, out, teacher, banks), plans


def _truncated(manifest: Manifest) -> dict[str, int]:
    found = {name: bank.truncated for name, bank in manifest.banks.items()}
    found["captions"] = sum(shard.captions_truncated for _, shard in manifest.listed_shards)
    return {name: count for name, count in found.items() if count}


def _versions() -> dict[str, str]:
    names = ("distill", "torch", "open_clip_torch", "faiss-cpu", "h5py", "numpy", "pillow", "webdataset")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = version(name)
        except ModuleNotFoundError:  # faiss-gpu instead of faiss-cpu, or distill run from its folder
            continue
    return found


def _remove_unlisted(out: Path, manifest: Manifest) -> None:
    # A shard that is not listed does not exist; its file is what a kill or a rebuild left behind.
    listed = {shard.file for _, shard in manifest.listed_shards}
    listed |= {shard.file for shard in manifest.column_shards}
    listed |= {file.file for file in manifest.text_tower}
    for folder in ("images", *COLUMNS, TEXT_TOWER):
        for file in (out / folder).glob("*"):
            if f"{folder}/{file.name}" not in listed:
                file.unlink()


def _write_extras(
    manifest: Manifest,
    out: Path,
    teacher: Teacher,
    folder: RecordFolder,
    options: BuildOptions,
    progress: Progress,
) -> Manifest:
    """Add what only some uses need: views for retrieval and training, pixels, the text tower for prompts.

    What an earlier command added stays where it is of the images that the rows are of.
    """
    manifest = drop_stale_shards(manifest, out)
    if options.support_views and isinstance(folder, ImageFolder):
        support = ViewOptions(
            views=options.support_views,
            shots=options.support_shots,
            batch_size=options.batch_size,
            workers=options.workers,
        )
        manifest = write_views(manifest, out, teacher, folder, support, progress)
    if options.views and isinstance(folder, ImageFolder):
        manifest = write_train_views(manifest, out, teacher, folder, options.views, progress)
    if options.pixels and isinstance(folder, ImageFolder):
        manifest = write_pixels(manifest, out, folder, options.pixels, progress)
    kept = bool(manifest.text_tower) and all(file.is_sound(out) for file in manifest.text_tower)
    if options.keep_text_tower and not kept:
        files = save_text_tower(out, *text_network_of(teacher))
        manifest = replace(manifest, text_tower=files)
        manifest.save(out)
    return manifest


def _match_captions(
    manifest: Manifest,
    out: Path,
    teacher: Teacher,
    captions: Captions | None,
    folder: RecordFolder,
    progress: Progress,
) -> Manifest:
    """Give finished shards the captions of this run; the images are not embedded again."""
    had = [
        s for _, s in manifest.listed_shards if captions and s.captions_sha256 not in ("", captions.sha256)
    ]
    before = sum(split.own_captions for split in manifest.splits.values())
    if captions and had:
        progress.note(
            f"{captions.source} is not what {out} was made with: the captions of "
            f"{sum(shard.rows for shard in had):,} images are replaced"
        )
    for split, shard in manifest.listed_shards:
        if captions is None or shard.captions_sha256 == captions.sha256:
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


def _store_neighbours(out: Path, manifest: Manifest, banks: Sequence[BankTexts], k: int) -> None:
    cache = EmbeddingCache(out, manifest)
    for bank in banks:
        if k and all(bank.classes):
            for split in cache.split_names:
                cache.neighbours(split, bank.name, k)
