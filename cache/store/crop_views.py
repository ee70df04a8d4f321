"""Reads the crops that a cache keeps of its training images: boxes, flips, and the teacher's rows of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.store.hdf5_columns import Forms
from cache.store.mapped_arrays import MappedRows
from cache.store.split_rows import SplitRows

COLUMN = "crop_views"
ADD_VIEWS = "add them: the same cache-features command with --views V, 4 for example."
_FORMS: Forms = {
    "box": ("f", (3,)),
    "flip": ("b", (2,)),
    "view_embedding": ("f", (3,)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class CropViewsSettings:
    """``views`` crops an image, of at least ``scale`` of its area, by the ``teacher`` of that fingerprint."""

    views: int
    scale: float
    teacher: str


class StoredCropViews:
    """The kept views of one split, V an image, mapped; see :meth:`cache.reader.EmbeddingCache.crop_views`.

    Rows are those of the split.
    """

    def __init__(self, rows: SplitRows, column: str, settings: CropViewsSettings) -> None:
        """Open the column of that name, which every group has; UserError where a file is damaged."""
        self.views, self.scale = settings.views, settings.scale
        self.position: Mapping[str, int] = rows.position
        self.find = rows.find
        self._order = rows.groups.index.order
        views = (self.views,)
        below = {"box": (*views, 4), "flip": views, "view_embedding": views}
        of_groups = rows.groups.arrays(column, _FORMS, below=below)
        # A row for every view, so that one view is read of an image and not all.
        self._box, self._flip, self._embedding = (
            MappedRows([arrays[name].reshape(-1, *arrays[name].shape[2:]) for arrays in of_groups])
            for name in _FORMS
        )

    def crops(
        self, rows: NDArray[np.int64], views: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return one view each of some rows: boxes [B, 4] in fractions, and flips [B]."""
        at = self._places(rows, views)
        return self._box[at], self._flip[at]

    def embeddings(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[Any]:
        """Return the teacher's embeddings of one view each of some rows, [B, D], raw."""
        return self._embedding[self._places(rows, views)]

    def _places(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._order[rows] * self.views + views
