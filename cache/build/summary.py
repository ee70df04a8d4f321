"""What a stage-1 run did, and what of it should be looked at."""

from __future__ import annotations

from dataclasses import dataclass

from cache.build.captions import caption_counts
from cache.build.embed_images import Seconds
from cache.build.judgements import Judgements
from cache.build.options import Build
from cache.build.preparation import Preparation
from cache.build.text_banks import sources_of
from cache.build.zero_shot import ZeroShot
from cache.reader import EmbeddingCache
from cache.store.duplicates import Duplicate
from cache.store.journal import Journal, SkippedImage
from cache.store.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class BuildSummary:
    """What a build did.

    ``new_rows`` were embedded; ``removed_rows`` are of images that are gone, ``replaced_rows`` of images that
    are others now, ``restored_rows`` of images that are back. ``sources`` say of which file each text bank and
    the captions are; ``doubts`` are lines on what should be looked at.
    """

    rows: int
    new_rows: int
    removed_rows: int
    replaced_rows: int
    restored_rows: int
    bytes: int
    images_per_s: float
    seconds: Seconds
    total_seconds: float
    skipped: dict[str, SkippedImage]
    truncated: dict[str, int]
    missing_captions: int
    duplicates: list[Duplicate]
    sources: dict[str, str]
    zero_shot: list[ZeroShot]
    doubts: list[str]


def summarize(
    build: Build,
    prepared: Preparation,
    manifest: Manifest,
    *,
    embedding: float,
    seconds: Seconds,
    total: float,
) -> BuildSummary:
    """Return what a run of ``total`` seconds, ``embedding`` of them, did.

    The first of several ranks alone adds what should be looked at.
    """
    out, names = build.out, [bank.name for bank in build.banks]
    journal = Journal.load(out)
    rows, new_rows = (
        sum(group.live for group in journal.all_groups if group.name not in seen)
        for seen in (frozenset(), prepared.planned)
    )
    truncated = {name: bank.truncated for name, bank in manifest.banks.items()}
    _, missing, truncated["captions"] = caption_counts(journal.all_groups)
    apart = [bank.name for bank in build.banks if not bank.may_tie]
    cache = EmbeddingCache(out, manifest, journal)
    judged = Judgements.of(cache, names, apart) if build.ranks.is_first else Judgements()
    return BuildSummary(
        rows=rows,
        new_rows=new_rows,
        removed_rows=prepared.changes.gone,
        replaced_rows=prepared.changes.replaced + prepared.changes.relabelled,
        restored_rows=prepared.changes.restored,
        bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        images_per_s=new_rows / embedding,
        seconds=seconds,
        total_seconds=total,
        skipped={
            f"{split}/{key}": images[key]
            for split, images in journal.skipped.items()
            for key in sorted(images)
        },
        truncated={name: count for name, count in truncated.items() if count},
        missing_captions=missing,
        duplicates=[*judged.duplicates],
        sources=sources_of(manifest, journal, build.captions),
        zero_shot=[*judged.zero_shot],
        doubts=[*judged.doubts],
    )
