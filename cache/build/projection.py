"""Fits what rows are projected by, on the rows of train and pool: PCA, once for a teacher of a cache."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.sources.splits import MAIN_TEACHER, POOL
from cache.store.column_lines import column_name
from cache.store.journal import Journal
from cache.store.journal_lines import IMAGES
from cache.store.manifest import Manifest
from cache.store.projections import KEPT, Projection
from cache.store.webdataset import rows_of_group

ROWS_AT_ONCE = 16_384


def with_projection(cache: Path, manifest: Manifest, *, teacher: str = MAIN_TEACHER) -> Manifest:
    """Return a manifest that lists a teacher's projection, saved: as it is there and sound, or fitted.

    Rows that come later are projected by it as well, so that what is encoded stays.
    """
    listed = manifest.of_teacher(teacher).projection
    if listed and listed[0].is_sound(cache):
        return manifest
    made = fitted(_rows(cache, teacher), manifest.of_teacher(teacher).embed_dim)
    manifest = manifest.with_projection(made.save(cache, teacher=teacher), teacher=teacher)
    manifest.save(cache)
    return manifest


def fitted(blocks: Iterator[NDArray[np.float64]], embed_dim: int) -> Projection:
    """Return the first 128 principal components of rows, in blocks [n, D]; all of fewer dimensions."""
    count, total = 0, np.zeros(embed_dim)
    squares = np.zeros((embed_dim, embed_dim))
    for rows in blocks:
        count, total = count + len(rows), total + rows.sum(axis=0)
        squares += rows.T @ rows
    mean = total / max(count, 1)
    _, vectors = np.linalg.eigh(squares / max(count, 1) - np.outer(mean, mean))
    components = vectors[:, ::-1][:, :KEPT].T
    return Projection(mean=mean.astype(np.float32), components=components.astype(np.float32))


def _rows(cache: Path, teacher: str) -> Iterator[NDArray[np.float64]]:
    journal = Journal.load(cache)
    for split in ("train", POOL):
        for group in journal.groups(split):
            rows, live = rows_of_group(cache, group, column_name(IMAGES, teacher)), group.live_rows
            for start in range(0, len(live), ROWS_AT_ONCE):
                yield rows[live[start : start + ROWS_AT_ONCE]].astype(np.float64)
