"""The rows of training images that are of several splits, joined in the order of the images."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.store.mapped_arrays import MappedRows
from cache.store.split_rows import SplitRows

Part = tuple[SplitRows, NDArray[np.int64]]
"""Some rows of a split, by their numbers."""


class JoinedRows:
    """The rows ``at`` of one split after the other; row i of every column is image i.

    ``labels`` are numbers of ``class_names``, int64 [N], -1 for none, or [N, C] where an image can have
    several.
    """

    captions = None

    def __init__(
        self, parts: Sequence[Part], class_names: tuple[str, ...], labels: NDArray[np.int64]
    ) -> None:
        self.parts, self.class_names, self.labels = tuple(parts), class_names, labels
        splits = [split for split, _ in self.parts]
        starts = np.cumsum([0, *map(len, splits)])
        self._splits = splits
        self._order = np.concatenate(
            [start + at for start, (_, at) in zip(starts[:-1], self.parts, strict=True)]
        )

    def of(self, cache: EmbeddingCache) -> JoinedRows:
        """Return the same rows of another teacher."""
        parts = [(cache.split(split.name), at) for split, at in self.parts]
        return JoinedRows(parts, self.class_names, self.labels)

    @cached_property
    def embeddings(self) -> MappedRows:
        """The rows of the images, [N, D]."""
        return MappedRows([split.embeddings for split in self._splits], self._order)

    @cached_property
    def caption_embeddings(self) -> MappedRows | None:
        """The rows of the captions, [N, D]; None where one of the splits has none."""
        columns = [split.caption_embeddings for split in self._splits]
        return None if None in columns else MappedRows(columns, self._order)
