"""Reads the views that a cache keeps of images to learn from: boxes, flips, seeds, and the teacher's rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.store.hdf5_columns import Forms
from cache.store.mapped_arrays import MappedRows
from cache.store.split_rows import SplitRows

COLUMN = "crop_views"
# What a view is made of, called as what training does where it draws anew.
CROP_FLIP, RANDAUGMENT = "crop_flip", "randaugment"
POLICIES = (CROP_FLIP, RANDAUGMENT)
_FORMS: Forms = {
    "box": ("f", (3,)),
    "flip": ("b", (2,)),
    "seed": ("i", (2,)),
    "view_embedding": ("f", (3,)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CropViewsSettings:
    """``views`` an image by the ``teacher`` of that fingerprint, crops of at least ``scale`` of its area.

    The whole picture goes through RandAugment before, so many ``operations`` of a ``magnitude``; 0 for none.
    """

    views: int
    scale: float
    operations: int
    magnitude: int
    teacher: str

    @property
    def policy(self) -> str:
        """What ``--view-policy`` calls it."""
        return RANDAUGMENT if self.operations else CROP_FLIP

    @property
    def words(self) -> str:
        """The views in words, without whose they are."""
        after = f" after RandAugment({self.operations}, {self.magnitude})" if self.operations else ""
        return f"{self.views} crops of at least {self.scale:g}{after}"

    @property
    def command(self) -> str:
        """The options that make them, in our own words."""
        return f"--views {self.views:d} --views-scale {self.scale:g} --view-policy {self.policy}"


class StoredCropViews:
    """The kept views of one split, V an image, mapped; see :meth:`cache.reader.EmbeddingCache.crop_views`.

    Rows are those of the split.
    """

    def __init__(self, rows: SplitRows, column: str, settings: CropViewsSettings) -> None:
        """Open the column of that name, which every group has; UserError where a file is damaged."""
        self.settings, self.views, self.find = settings, settings.views, rows.find
        self.count, self._order = len(rows), rows.groups.index.order
        views = (self.views,)
        below = {"box": (*views, 4), "flip": views, "seed": views, "view_embedding": views}
        of_groups = rows.groups.arrays(column, _FORMS, below=below)
        # A row for every view, so that one view is read of an image and not all.
        self._box, self._flip, self._seed, self._embedding = (
            MappedRows([arrays[name].reshape(-1, *arrays[name].shape[2:]) for arrays in of_groups])
            for name in _FORMS
        )

    def crops(
        self, rows: NDArray[np.int64], views: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return one view each of some rows: boxes [B, 4] in fractions, and flips [B]."""
        at = self._places(rows, views)
        return self._box[at], self._flip[at]

    def seeds(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.int32]:
        """Return what RandAugment of one view each of some rows is drawn from, [B]."""
        seeds: NDArray[np.int32] = self._seed[self._places(rows, views)]
        return seeds

    def embeddings(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[Any]:
        """Return the teacher's embeddings of one view each of some rows, [B, D], raw."""
        return self._embedding[self._places(rows, views)]

    def _places(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._order[rows] * self.views + views
