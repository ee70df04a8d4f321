"""Reads the pixels that a cache keeps, decoded or as JPEG, by row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.store.column_shards import open_column_shard
from cache.store.hdf5_columns import mapped_blobs, mapped_column, read_strings
from cache.store.manifest_lines import ListedShard, PixelsColumn
from cache.store.mapped_arrays import MappedRows


class StoredPixels:
    """The kept images of one split, uint8 [n, 3, R, R]; see :meth:`cache.reader.EmbeddingCache.pixels`."""

    def __init__(self, cache: Path, column: PixelsColumn) -> None:
        """Open the shards of a column; UserError when one is damaged."""
        self.side, self.encoding = column.side, column.encoding
        self.keys: list[str] = []
        shards: list[Any] = []
        for shard in column.shards:
            rows, keys = _read_shard(cache, shard, column)
            shards.append(rows)
            self.keys += keys
        self.position = {key: i for i, key in enumerate(self.keys)}
        self._rows = MappedRows(shards, np.arange(len(self.keys)))

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of some rows, uint8 [B, 3, R, R]."""
        images = self._rows[rows]
        return images if self.encoding == "raw" else np.stack([_decoded(image) for image in images])


def _read_shard(cache: Path, shard: ListedShard, column: PixelsColumn) -> tuple[Any, list[str]]:
    path = cache / shard.file
    with open_column_shard(cache, shard) as file:
        keys = read_strings(file, "key")
        rows: Any
        if column.encoding == "raw":
            rows = mapped_column(path, file, "pixels", kinds="u", ndim=(4,))
            if rows.shape[1:] != (3, column.side, column.side):
                raise ValueError(f"pixels have the shape {rows.shape}")
        else:
            rows = mapped_blobs(path, file, "jpeg")
        if not len(rows) == len(keys) == shard.rows:
            raise ValueError("its columns differ in length")
    return rows, keys


def _decoded(encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(encoded.tobytes())) as image:
        return np.array(image).transpose(2, 0, 1)
