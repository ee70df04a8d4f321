"""Reads the views that a cache keeps of images to learn from: boxes, flips, seeds, and the teacher's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.store.hdf5_columns import Forms
from cache.store.mapped_arrays import MappedRows
from cache.store.projections import PCA128_INT8, Projection
from cache.store.split_rows import SplitRows

COLUMN = "crop_views"
# What a view is made of, called as what training does where it draws anew.
CROP_FLIP, RANDAUGMENT = "crop_flip", "randaugment"
POLICIES = (CROP_FLIP, RANDAUGMENT)
_DRAWN: Forms = {"box": ("f", (3,)), "flip": ("b", (2,)), "seed": ("i", (2,))}
_RAW: Forms = {"view_embedding": ("f", (3,))}
_ENCODED: Forms = {"view_code": ("i", (3,)), "view_scale": ("f", (2,))}


@dataclass(frozen=True, kw_only=True, slots=True)
class CropViewsSettings:
    """``views`` an image by the ``teacher`` of that fingerprint, crops of at least ``scale`` of its area.

    The whole picture goes through RandAugment before, so many ``operations`` of a ``magnitude``; 0 for none.
    Rows are raw, or by the ``projection`` of that SHA-256.
    """

    views: int
    scale: float
    operations: int
    magnitude: int
    teacher: str
    projection: str = ""

    @property
    def policy(self) -> str:
        """What ``--view-policy`` calls it."""
        return RANDAUGMENT if self.operations else CROP_FLIP

    @property
    def drawn(self) -> tuple[int, float, int, int]:
        """What the views are drawn by, whose rows they may have."""
        return self.views, self.scale, self.operations, self.magnitude

    @property
    def words(self) -> str:
        """The views in words, without whose they are."""
        after = f" after RandAugment({self.operations}, {self.magnitude})" if self.operations else ""
        store = f", rows as {PCA128_INT8}" if self.projection else ""
        return f"{self.views} crops of at least {self.scale:g}{after}{store}"

    @property
    def command(self) -> str:
        """The options that make them, in our own words."""
        store = f" --store {PCA128_INT8}" if self.projection else ""
        return f"--views {self.views:d} --views-scale {self.scale:g} --view-policy {self.policy}{store}"


class StoredCropViews:
    """The kept views of one split, V an image, mapped; see :meth:`cache.reader.EmbeddingCache.crop_views`.

    Rows are those of the split.
    """

    def __init__(
        self, rows: SplitRows, column: str, settings: CropViewsSettings, projection: Projection | None = None
    ) -> None:
        """Open the column of that name, which every group has; UserError where a file is damaged.

        ``projection`` is what its rows were projected by, None where they are raw.
        """
        self.settings, self.views, self.find = settings, settings.views, rows.find
        self.count, self._order = len(rows), rows.groups.index.order
        self._projection, views = projection, (self.views,)
        forms = {**_DRAWN, **(_RAW if projection is None else _ENCODED)}
        below = {**dict.fromkeys(forms, views), "box": (*views, 4)}
        if projection is not None:
            below["view_code"] = (*views, len(projection.components))
        of_groups = rows.groups.arrays(column, forms, below=below)
        # A row for every view, so that one view is read of an image and not all.
        self._columns = {
            name: MappedRows([arrays[name].reshape(-1, *arrays[name].shape[2:]) for arrays in of_groups])
            for name in forms
        }

    def crops(
        self, rows: NDArray[np.int64], views: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return one view each of some rows: boxes [B, 4] in fractions, and flips [B]."""
        at = self._places(rows, views)
        return self._columns["box"][at], self._columns["flip"][at]

    def seeds(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return what RandAugment of one view each of some rows is drawn from, [B]."""
        seeds: NDArray[np.int32] = self._columns["seed"][self._places(rows, views)]
        return seeds

    def embeddings(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[Any]:
        """Return the teacher's embeddings of one view each of some rows, [B, D], raw or decoded."""
        at = self._places(rows, views)
        if self._projection is None:
            return self._columns["view_embedding"][at]
        return self._projection.decoded(self._columns["view_code"][at], self._columns["view_scale"][at])

    def _places(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._order[rows] * self.views + views
