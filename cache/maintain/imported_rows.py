"""The rows of an import as row groups: what is new is added; what is gone, or another now, is removed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.build.stored_rows import StoredRows
from cache.reader import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.progress import Progress
from cache.sources.arrays import Rows
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Sample
from cache.store.hdf5_columns import texts
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import CAPTIONS, IMAGES, DroppedFile, FileLine
from cache.store.row_group import GROUP_ROWS, GroupKeys, claim_group, write_column, write_group
from cache.store.spec import WEBDATASET
from cache.store.split_rows import SplitRows
from cache.store.webdataset import write_tar_group

ROWS_AT_ONCE = 4096
_NO_ROWS = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, kw_only=True)
class ImportedSplit:
    """The N rows of a split that are imported, in the order of their ``keys``, which are sorted.

    Row ``at[i]`` of ``embeddings`` [M, D] and ``captions`` is of key i, ``labels[i]`` are the names of its
    classes, and ``samples[i]`` its image, where images are at hand. ``dtype`` is the cache's.
    """

    split: str
    keys: Sequence[str]
    labels: Sequence[tuple[str, ...]]
    at: NDArray[np.int64]
    embeddings: Rows
    dtype: str
    captions: Rows | None = None
    samples: Sequence[Sample] = ()

    @cached_property
    def group_keys(self) -> GroupKeys:
        """What the rows are of: what the images are now; what they were once nobody knows."""
        files = [sample.identity() for sample in self.samples] or [("", 0, 0)] * len(self.keys)
        return GroupKeys.of(self.split, self.keys, self.labels, files)

    def columns(self, rows: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return some rows as the cache keeps them, by column."""
        given = {IMAGES: self.embeddings, CAPTIONS: self.captions}
        at = self.at[rows]
        return {name: array[at].astype(self.dtype) for name, array in given.items() if array is not None}


@dataclass(frozen=True, kw_only=True)
class SplitUpdate:
    """What an import makes of a split.

    ``removed`` are rows of the cache's, in the order of its index, ``added`` rows of the import's. Of the
    images that have a row in ``both``, ``others`` have another one now, and not because they are others.
    """

    given: ImportedSplit
    keys: GroupKeys
    added: NDArray[np.int64]
    removed: NDArray[np.int64] = field(default_factory=_NO_ROWS.copy)
    replaced: int = 0
    both: int = 0
    others: int = 0


def compare(cache: EmbeddingCache, given: ImportedSplit) -> SplitUpdate:
    """Join the rows of an import to those that a cache has of the same keys.

    Raises
    ------
    UserError
        If rows are added without captions to a split that has them.
    """
    keys = given.group_keys
    if given.split not in cache.split_names:
        return SplitUpdate(given=given, keys=keys, added=np.arange(len(keys)))
    rows = cache.split(given.split)
    at = rows.find(given.keys)
    here = np.flatnonzero(at >= 0)
    before, now = rows.files.content[at[here]], keys.content[here]
    # What was imported without its images and comes with them now is kept with what they are.
    other_image = now.any(axis=1) & (before != now).any(axis=1)
    other_row, other_caption = _differ(rows, at, given, here)
    other_label = _labels_differ(rows, at[here], [given.labels[i] for i in here.tolist()])
    stays = ~(other_image | other_row | other_caption | other_label)
    added = np.setdiff1d(np.arange(len(keys)), here[stays])
    if rows.has_captions and given.captions is None and len(added):
        raise UserError(
            f"the cache {cache.path} keeps captions of {given.split}, and {len(added):,} new rows have none",
            fix="give --captions, or choose another --out.",
        )
    return SplitUpdate(
        given=given,
        keys=keys,
        added=added,
        removed=np.setdiff1d(np.arange(len(rows)), at[here[stays]]),
        replaced=int((~stays).sum()),
        both=len(here),
        others=int((other_row & ~(other_image & before.any(axis=1))).sum()),
    )


def _differ(
    rows: SplitRows, at: NDArray[np.int64], given: ImportedSplit, here: NDArray[np.int64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Say of the rows that both have whether the image's and the caption's embedding is another now."""
    stored = {IMAGES: rows.embeddings, CAPTIONS: rows.caption_embeddings}
    differ = {name: np.zeros(len(here), dtype=bool) for name in stored}
    for start in range(0, len(here), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        for name, wanted in given.columns(here[block]).items():
            kept = stored[name]
            differ[name][block] = True if kept is None else (kept[at[here[block]]] != wanted).any(axis=1)
    return differ[IMAGES], differ[CAPTIONS]


def _labels_differ(
    rows: SplitRows, at: NDArray[np.int64], labels: Sequence[tuple[str, ...]]
) -> NDArray[np.bool_]:
    """Say of some rows of a cache whether their classes are others now."""
    number = {name: i for i, name in enumerate(rows.class_names)}
    stored = np.asarray(rows.labels)[at]
    if stored.ndim == 1:
        # One of several classes, or of one that is new, is none of the cache's.
        own = (-1 if not names else number.get(names[0], -2) if len(names) == 1 else -2 for names in labels)
        return np.asarray(stored != np.fromiter(own, dtype=np.int64, count=len(labels)))
    now = np.zeros_like(stored)
    new = np.zeros(len(labels), dtype=bool)
    for i, names in enumerate(labels):
        now[i, [number[name] for name in names if name in number]] = 1
        new[i] = not {*names} <= number.keys()
    return np.asarray(new | (stored != now).any(axis=1))


def check_same_teacher(cache: EmbeddingCache, updates: Sequence[SplitUpdate]) -> None:
    """Make sure that an import goes on with the rows that are there; CacheMismatch where they are another's.

    There are no weights to name an imported teacher by: its rows do. Some may be others, of images that were
    exchanged; not most of them.
    """
    both, others = (sum(getattr(update, name) for update in updates) for name in ("both", "others"))
    if cache.rows and (not both or 2 * others > both):
        what = f"{others:,} of {both:,} rows that both have differ" if both else "they have no row in common"
        raise CacheMismatch(
            f"{cache.path} is a cache of another make ({what})",
            fix="choose another --out, or move that folder away.",
        )


def apply(cache: EmbeddingCache, updates: Sequence[SplitUpdate], progress: Progress) -> None:
    """Write what updates add, and have the journal remove what they remove; killed, it is repeated."""
    progress.start(sum(len(update.added) for update in updates), "writing rows", "rows")
    out, writer = cache.path, JournalWriter(cache.path)
    given = {update.given.split: update for update in updates}
    for split in cache.split_names:
        rows = cache.split(split)
        removed = given[split].removed if split in given else np.arange(len(rows))
        groups = rows.groups
        writer.add(*StoredRows(out, groups.groups).removing(groups.index.order[removed]))
    for update in updates:
        for start in range(0, len(update.added), GROUP_ROWS):
            rows_of_group = update.added[start : start + GROUP_ROWS]
            writer.add(*_write(out, update, rows_of_group, cache.manifest.spec.format))
            progress.advance(len(rows_of_group))
    # Nothing of them is seen, and what is asked of all groups, such as captions, they may not have.
    empty = [group for group in Journal.load(out).all_groups if not group.live]
    writer.add(*(DroppedFile(file=group.keys.file) for group in empty))


def _write(out: Path, update: SplitUpdate, rows: NDArray[np.int64], format: str) -> list[FileLine]:
    given = update.given
    if format == WEBDATASET:
        rows = rows[np.argsort(hashes_of([given.keys[i] for i in rows.tolist()]), kind="stable")]
    keys, columns, group = update.keys.taken(rows), given.columns(rows), claim_group(out, given.split)
    datasets: dict[str, dict[str, Any]] = {name: {"embedding": array} for name, array in columns.items()}
    if CAPTIONS in datasets:
        datasets[CAPTIONS]["caption"] = texts([""] * len(keys))
    if format != WEBDATASET:
        return write_group(out, group, keys, datasets)
    samples = [given.samples[i] for i in rows.tolist()] if given.samples else None
    lines = write_tar_group(out, group, keys, columns, samples)
    if CAPTIONS in datasets:
        lines.insert(0, write_column(out, group, CAPTIONS, datasets[CAPTIONS], rows=len(keys)))
    return lines
