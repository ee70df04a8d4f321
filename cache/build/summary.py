"""What a stage-1 run did, and what of it should be looked at."""

from __future__ import annotations

from dataclasses import dataclass

from cache.build.embed_images import Seconds
from cache.build.options import Build
from cache.build.text_banks import sources_of
from cache.build.zero_shot import ZeroShot, doubts, zero_shot
from cache.reader import EmbeddingCache
from cache.store.duplicates import Duplicate, duplicates_of
from cache.store.manifest import Manifest
from cache.store.manifest_lines import SkippedImage


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
    skipped: dict[str, SkippedImage]
    truncated: dict[str, int]
    missing_captions: int
    duplicates: list[Duplicate]
    sources: dict[str, str]
    zero_shot: list[ZeroShot]
    doubts: list[str]


def summarize(
    build: Build, manifest: Manifest, *, before: int, embedding: float, seconds: Seconds, total: float
) -> BuildSummary:
    """Return what a run of ``total`` seconds, ``embedding`` of them, did to a cache that had rows ``before``.

    The first of several ranks alone adds what should be looked at: duplicates, and how the teacher classifies
    its own rows.
    """
    out, names = build.out, [bank.name for bank in build.banks]
    cache, is_first = EmbeddingCache(out, manifest), build.ranks.is_first
    truncated = {name: bank.truncated for name, bank in manifest.banks.items()}
    shards = [shard for _, shard in manifest.listed_shards]
    truncated["captions"] = sum(shard.captions_truncated for shard in shards)
    judged = zero_shot(cache, names) if is_first else []
    apart = [bank.name for bank in build.banks if not bank.may_tie]
    return BuildSummary(
        rows=manifest.rows,
        new_rows=manifest.rows - before,
        bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        images_per_s=(manifest.rows - before) / embedding,
        seconds=seconds,
        total_seconds=total,
        skipped={
            f"{name}/{image.key}": image for name, split in manifest.splits.items() for image in split.skipped
        },
        truncated={name: count for name, count in truncated.items() if count},
        missing_captions=sum(shard.captions_missing for shard in shards),
        duplicates=duplicates_of(out, manifest) if is_first else [],
        sources=sources_of(manifest, build.captions),
        zero_shot=judged,
        doubts=doubts(cache, apart, judged) if is_first else [],
    )
