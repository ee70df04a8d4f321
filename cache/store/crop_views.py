"""Reads the crops that a cache keeps of its training images: boxes, flips, and the teacher's rows of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.hdf5_safety import inner_dataset
from cache.store.column_shards import open_column_shard
from cache.store.hdf5_columns import mapped_column, read_strings
from cache.store.manifest_lines import CropViewsColumn, ListedShard
from cache.store.mapped_arrays import CheckedRows, MappedRows

ADD_VIEWS = "add them: the same cache-features command with --views V, 4 for example."


class StoredCropViews:
    """The kept views of one split, V an image, mapped; see :meth:`cache.reader.EmbeddingCache.crop_views`."""

    def __init__(self, cache: Path, column: CropViewsColumn) -> None:
        """Open the shards of a column; UserError when one is damaged."""
        self.views, self.scale = column.views, column.scale
        keys: list[str] = []
        shards: list[tuple[Any, Any, Any]] = []
        for shard in column.shards:
            of_shard, *columns = _read_shard(cache, shard)
            keys += of_shard
            shards.append(tuple(columns))  # type: ignore[arg-type]
        self.position = {key: i for i, key in enumerate(keys)}
        order = np.arange(len(keys) * self.views)
        self._box, self._flip, self._embedding = (
            MappedRows(rows, order) for rows in zip(*shards, strict=True)
        )

    def crops(
        self, rows: NDArray[np.int64], views: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return one view each of some rows: boxes [B, 4] in fractions, and flips [B]."""
        at = rows * self.views + views
        return self._box[at], self._flip[at]

    def embeddings(self, rows: NDArray[np.int64], views: NDArray[np.int64]) -> NDArray[Any]:
        """Return the teacher's embeddings of one view each of some rows, [B, D], raw."""
        return self._embedding[rows * self.views + views]


def _read_shard(cache: Path, shard: ListedShard) -> tuple[list[str], CheckedRows, CheckedRows, CheckedRows]:
    """Return a shard's keys, and its boxes, flips and embeddings with a row for every view."""
    path = cache / shard.file
    with open_column_shard(cache, shard) as file:
        keys, views = read_strings(file, "key"), inner_dataset(file, "view_embedding").shape[1]
        columns = (
            mapped_column(path, file, "box", kinds="f", ndim=(3,), dims=2),
            mapped_column(path, file, "flip", kinds="b", ndim=(2,), dims=2),
            mapped_column(path, file, "view_embedding", kinds="f", ndim=(3,), dims=2),
        )
        if {len(column) for column in columns} != {len(keys) * views} or len(keys) != shard.rows:
            raise ValueError("its columns differ in length")
    return keys, *columns
