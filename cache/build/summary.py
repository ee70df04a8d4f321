"""What a stage-1 run did, and what of it should be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from cache.build.captions import Captions
from cache.build.embed_images import Seconds
from cache.build.text_banks import sources_of
from cache.build.zero_shot import ZeroShot, doubts, zero_shot
from cache.reader import EmbeddingCache
from cache.sources.class_texts import BankTexts
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
    seconds: Seconds = field(default_factory=Seconds)
    total_seconds: float = 0.0
    skipped: dict[str, SkippedImage] = field(default_factory=dict)
    truncated: dict[str, int] = field(default_factory=dict)
    missing_captions: int = 0
    duplicates: list[Duplicate] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)
    zero_shot: list[ZeroShot] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)


def summarize(
    manifest: Manifest, out: Path, captions: Captions | None, *, before: int, embedding: float
) -> BuildSummary:
    """Return what a run of ``embedding`` seconds did to a cache that had rows ``before``."""
    shards = [shard for _, shard in manifest.listed_shards]
    truncated = {name: bank.truncated for name, bank in manifest.banks.items()}
    truncated["captions"] = sum(shard.captions_truncated for shard in shards)
    return BuildSummary(
        rows=manifest.rows,
        new_rows=manifest.rows - before,
        bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        images_per_s=(manifest.rows - before) / embedding,
        skipped={
            f"{name}/{image.key}": image for name, split in manifest.splits.items() for image in split.skipped
        },
        truncated={name: count for name, count in truncated.items() if count},
        missing_captions=sum(shard.captions_missing for shard in shards),
        sources=sources_of(manifest, captions),
    )


def with_doubts(
    summary: BuildSummary, out: Path, manifest: Manifest, banks: Sequence[BankTexts]
) -> BuildSummary:
    """Add what should be looked at: duplicates, and how the teacher classifies its own rows."""
    cache, names = EmbeddingCache(out, manifest), [bank.name for bank in banks]
    judged = zero_shot(cache, names)
    return replace(
        summary,
        duplicates=duplicates_of(out, manifest),
        zero_shot=judged,
        doubts=doubts(cache, [bank.name for bank in banks if not bank.may_tie], judged),
    )
