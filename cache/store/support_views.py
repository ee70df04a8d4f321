"""Reads the augmented views that a cache keeps for few-shot retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.store.column_lines import is_current
from cache.store.hdf5_columns import map_columns
from cache.store.journal import RowGroup
from cache.store.read_errors import reading
from cache.store.split_rows import SplitRows

COLUMN = "support_views"


@dataclass(frozen=True, kw_only=True, slots=True)
class SupportViewsSettings:
    """``views`` an image with the plain one, by RandAugment of so many ``operations`` of a ``magnitude``.

    Their rows are of the ``teacher`` of that fingerprint.
    """

    views: int
    operations: int
    magnitude: int
    teacher: str


def read_support_views(
    rows: SplitRows,
    column: str,
    settings: SupportViewsSettings | None,
    keys: Sequence[str],
    views: int | None,
) -> NDArray[np.float32]:
    """Return the augmented views of images, [m, V - 1, D] float32; see ``EmbeddingCache.support_views``."""
    cache, kept = rows.groups.cache, settings.views if settings else 0
    wanted = views or kept or 10
    add = (
        f"add them: the same cache-features command with --support-views {wanted}, "
        "or use --support-views 1, which needs the plain rows alone."
    )
    if settings is None or kept < wanted:
        how_many = f"only {kept}" if settings else "no"
        raise UserError(f"the cache {cache} keeps {how_many} views of the images of {rows.name}", fix=add)
    views_of = _read(rows, column, settings, rows.find(keys), wanted - 1)
    missing = [key for key, views_of_key in zip(keys, views_of, strict=True) if views_of_key is None]
    if missing:
        raise UserError(
            f"the cache {cache} keeps no views of {len(missing)} of {len(keys)} support images "
            f"of {rows.name} ({', '.join(missing[:3])})",
            fix=f"{add.removesuffix('.')} (and a --support-shots of 0, or at least as many as the shots).",
        )
    return np.stack([one for one in views_of if one is not None]).astype(np.float32)


def _read(
    rows: SplitRows,
    column: str,
    settings: SupportViewsSettings,
    wanted: NDArray[np.int64],
    copies: int,
) -> list[NDArray[Any] | None]:
    """Return the views [copies, D] of some rows of a split, None for one that has none."""
    views_of: list[NDArray[Any] | None] = [None] * len(wanted)
    here = np.flatnonzero(wanted >= 0)
    group_of, number = rows.group_of(wanted[here])
    for index in np.unique(group_of).tolist():
        group = rows.groups.groups[index]
        if not is_current(group, column, asdict(settings)):
            continue
        of_rows, embedding = _open(rows, group, column, settings)
        inside = group_of == index
        at = np.searchsorted(of_rows, number[inside])
        for place, row, i in zip(here[inside].tolist(), number[inside].tolist(), at.tolist(), strict=True):
            if i < len(of_rows) and of_rows[i] == row:
                views_of[place] = embedding[i, :copies]
    return views_of


def _open(
    rows: SplitRows, group: RowGroup, column: str, settings: SupportViewsSettings
) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Return which rows of a group have views, rising, int32 [m], and these, [m, V - 1, D]."""
    line = rows.groups.line(group, column)
    path = rows.groups.cache / line.file
    with reading(path, size=line.bytes):
        arrays = map_columns(path, {"row": ("i", (1,)), "view_embedding": ("f", (3,))})
        of_rows, embedding = arrays["row"], arrays["view_embedding"]
        if len(of_rows) != len(embedding) or embedding.shape[1] != settings.views - 1:
            raise ValueError(f"it holds {len(of_rows):,} rows of {embedding.shape}")
        if (np.diff(of_rows) <= 0).any():
            raise ValueError("its rows do not rise")
    return of_rows, embedding
