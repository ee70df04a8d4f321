"""What a source holds now beside the rows that a cache has of it: what is new, gone, replaced, back again."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.build.split_listing import SplitListing
from cache.build.stored_rows import StoredRows
from cache.build.touched_files import TouchedFiles, first_64_bits
from cache.sources.key_hashes import hashes_of, positions
from cache.sources.samples import Source
from cache.store.journal_lines import SkippedImage
from cache.store.row_group import as_content

# Files that one thread looks at in one go: they wait for the disk, which on a network is slow.
FILES_AT_ONCE = 512
THREADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitChanges:
    """What became of a split.

    ``missing`` bool [N] says which of the listed samples are to be embedded. ``removed`` and ``restored`` are
    rows, int64. ``skipped`` are the samples, by key, that could not be read and are unchanged since, and
    the number of their chunk. ``gone`` counts the rows whose sample is there no more, ``replaced`` those of
    other content now, ``relabelled`` those of other classes now.
    """

    missing: NDArray[np.bool_]
    removed: NDArray[np.int64]
    restored: NDArray[np.int64]
    skipped: dict[str, tuple[SkippedImage, int]]
    touched: TouchedFiles
    added: int
    gone: int
    replaced: int
    relabelled: int


def compare_split(
    source: Source,
    listing: SplitListing,
    stored: StoredRows,
    skipped: Mapping[str, SkippedImage],
    touched: TouchedFiles,
) -> SplitChanges:
    """Join what a source lists to the rows that a cache has; files that look different are read.

    A file of the size and time that its row kept is taken to be unchanged.
    """
    live = stored.live
    place = stored.index.find(listing.hashes)
    # Of every listed sample its row, -1 where it has none.
    row = np.where(place >= 0, live[place], -1) if len(live) else place
    relabelled = (row >= 0) & (stored.labels[row] != listing.labels) if len(live) else row >= 0
    replaced, touched = _replaced(source, listing, stored, np.where(relabelled, -1, row), touched)
    wanted = (row < 0) | relabelled | replaced
    restored, back = _restored(source, listing, stored, wanted)
    still = _still_unreadable(listing, skipped)
    missing = wanted.copy()
    missing[back] = False
    missing[[at for _, at in still.values()]] = False
    gone = np.ones(len(live), dtype=bool)
    gone[place[place >= 0]] = False
    return SplitChanges(
        missing=missing,
        removed=np.sort(np.concatenate([live[gone], row[relabelled | replaced], stored.doubles])),
        restored=restored,
        skipped={key: (image, int(listing.chunk[at])) for key, (image, at) in still.items()},
        touched=touched,
        added=int((missing & (row < 0)).sum()),
        gone=int(gone.sum()) - len(stored.doubles),
        replaced=int(replaced.sum()),
        relabelled=int(relabelled.sum()),
    )


def _replaced(
    source: Source,
    listing: SplitListing,
    stored: StoredRows,
    row: NDArray[np.int64],
    touched: TouchedFiles,
) -> tuple[NDArray[np.bool_], TouchedFiles]:
    """Return which samples are not what their row was made from, and the files that only look so."""
    listed = np.flatnonzero(row >= 0)
    listed = listed[~_looks_the_same(listing, stored, listed, row[listed])]
    seen = _as_seen(listing, listed, stored.content(row[listed]))
    unseen = ~touched.covers(listing.hashes[listed], seen)
    listed, seen = listed[unseen], seen[unseen]
    same = _same_content(source, stored, row[listed])
    if same.any():
        touched = touched.with_files(listing.hashes[listed[same]], seen[same])
    replaced = np.zeros(len(listing), dtype=bool)
    replaced[listed[~same]] = True
    return replaced, touched


def _restored(
    source: Source, listing: SplitListing, stored: StoredRows, wanted: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return removed rows whose sample is wanted and what it was then, and these samples."""
    rows = stored.removed
    listed = positions(listing.hashes, stored.hashes[rows])
    here = listed >= 0
    rows, listed = rows[here], listed[here]
    here = wanted[listed] & (stored.labels[rows] == listing.labels[listed])
    rows, listed = rows[here], listed[here]
    same = _looks_the_same(listing, stored, listed, rows)
    # Those alone are read of which no removed row looks the same.
    other = np.flatnonzero(~same & ~np.isin(listed, listed[same]))
    same[other] = _same_content(source, stored, rows[other])
    listed, first = np.unique(listed[same], return_index=True)
    return np.sort(rows[same][first]), listed


def _still_unreadable(
    listing: SplitListing, skipped: Mapping[str, SkippedImage]
) -> dict[str, tuple[SkippedImage, int]]:
    """Return the skipped images that are listed as they were then, and where in the listing."""
    at = positions(listing.hashes, hashes_of([*skipped])).tolist()
    return {
        key: (image, i)
        for (key, image), i in zip(skipped.items(), at, strict=True)
        if i >= 0 and (image.bytes, image.mtime_ns) == (listing.bytes[i], listing.mtime_ns[i])
    }


def _looks_the_same(
    listing: SplitListing, stored: StoredRows, listed: NDArray[np.int64], rows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    return np.asarray(
        (listing.bytes[listed] == stored.bytes[rows]) & (listing.mtime_ns[listed] == stored.mtime_ns[rows])
    )


def _as_seen(
    listing: SplitListing, listed: NDArray[np.int64], content: NDArray[np.uint8]
) -> NDArray[np.int64]:
    return np.stack([listing.bytes[listed], listing.mtime_ns[listed], first_64_bits(content)], axis=1)


def _same_content(source: Source, stored: StoredRows, rows: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each row whether its sample holds what the row was made from; each is read.

    Rows that were made elsewhere may not say what of: any content is theirs.
    """
    blocks = [rows[start : start + FILES_AT_ONCE] for start in range(0, len(rows), FILES_AT_ONCE)]

    def same(block: NDArray[np.int64]) -> NDArray[np.bool_]:
        content = stored.content(block)
        # One that cannot be read is all zeros.
        now = as_content(sample.identity()[0] for sample in source.samples(stored.keys(block)))
        return np.asarray((now == content).all(axis=1) | ~content.any(axis=1))

    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        return np.concatenate([np.empty(0, bool), *pool.map(same, blocks)])
