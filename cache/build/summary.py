"""What a stage-1 run did, and what of it should be looked at."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache.build.captions import caption_counts
from cache.build.changes import Changes
from cache.build.embed_images import Seconds
from cache.build.judgements import Judgements
from cache.build.options import Build
from cache.build.text_banks import sources_of
from cache.build.zero_shot import ZeroShot
from cache.reader import EmbeddingCache
from cache.sources.accounts import Account
from cache.sources.splits import MAIN_TEACHER
from cache.store.duplicates import Duplicate
from cache.store.journal import Journal
from cache.store.journal_lines import SkippedImage
from cache.store.left_out import accounts_of
from cache.store.manifest import Manifest


@dataclass(frozen=True, kw_only=True)
class BuildSummary:
    """What a build did.

    All is of one ``teacher`` of the cache. ``new_rows`` were embedded; ``removed_rows`` are of images that
    are gone, ``replaced_rows`` of images that are others now, ``restored_rows`` of images that are back.
    ``added_columns`` are the rows of each column that was added beside them, in ``columns_seconds``.
    ``left_out`` is what has no row, by split; ``sources`` say of which file each text bank and the captions
    are; ``doubts`` are lines on what should be looked at.
    """

    teacher: str
    rows: int
    rows_of_splits: dict[str, int]
    new_rows: int
    added_columns: dict[str, int]
    columns_seconds: float
    removed_rows: int
    replaced_rows: int
    restored_rows: int
    bytes: int
    images_per_s: float
    seconds: Seconds
    total_seconds: float
    skipped: dict[str, SkippedImage]
    left_out: dict[str, Account]
    truncated: dict[str, int]
    missing_captions: int
    duplicates: list[Duplicate]
    sources: dict[str, str]
    zero_shot: list[ZeroShot]
    doubts: list[str]


@dataclass(frozen=True, kw_only=True)
class Took:
    """How long a run took in all, in seconds, how long ``embedding`` and ``columns``, and where that went."""

    embedding: float
    columns: float
    total: float
    seconds: Seconds = field(default_factory=Seconds)


def summarize(
    build: Build,
    changes: Changes,
    *,
    new_rows: int,
    added: dict[str, int],
    took: Took,
    teacher: str = MAIN_TEACHER,
) -> BuildSummary:
    """Return what a run did to the rows of one of a cache's teachers; ``added`` are those of each column.

    The first of several ranks alone adds what should be looked at.
    """
    out, names = build.out, [bank.name for bank in build.banks]
    manifest, journal = Manifest.load(out), Journal.load(out)
    cache = EmbeddingCache(out, manifest, journal, teacher=teacher)
    truncated = {name: bank.truncated for name, bank in manifest.of_teacher(teacher).banks.items()}
    _, missing, truncated["captions"] = caption_counts(journal.all_groups, teacher=teacher)
    apart = [bank.name for bank in build.banks if not bank.may_tie]
    judged = Judgements.of(cache, names, apart) if build.ranks.is_first else Judgements()
    return BuildSummary(
        teacher=teacher,
        rows=cache.rows,
        rows_of_splits={split: journal.rows(split) for split in manifest.splits},
        new_rows=new_rows,
        added_columns=added,
        columns_seconds=took.columns,
        removed_rows=changes.gone,
        replaced_rows=changes.replaced + changes.relabelled,
        restored_rows=changes.restored,
        bytes=sum(file.stat().st_size for file in out.rglob("*") if file.is_file()),
        images_per_s=new_rows / max(took.embedding, 1e-9),
        seconds=took.seconds,
        total_seconds=took.total,
        skipped={
            f"{split}/{key}": images[key]
            for split, images in journal.skipped.items()
            for key in sorted(images)
        },
        left_out=accounts_of(manifest, journal),
        truncated={name: count for name, count in truncated.items() if count},
        missing_captions=missing,
        duplicates=[*judged.duplicates],
        sources=sources_of(manifest, journal, build.captions, teacher=teacher),
        zero_shot=[*judged.zero_shot],
        doubts=[*judged.doubts],
    )
