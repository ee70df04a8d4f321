"""Reads the pixels that a cache keeps, decoded or as JPEG, by row."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cache.store.column_shards import open_side_shard
from cache.store.hdf5_columns import mapped_blobs, mapped_column, read_strings
from cache.store.manifest_lines import PixelsEntry, ShardEntry
from cache.store.mapped_arrays import MappedRows


class StoredPixels:
    """The kept images of one split, uint8 [n, 3, R, R] by row; see :meth:`EmbeddingCache.pixels`."""

    def __init__(self, cache: Path, entry: PixelsEntry) -> None:
        """Open the shards of an entry; UserError when one is damaged."""
        self.side, self.kind = entry.side, entry.kind
        self.keys: list[str] = []
        shards: list[Any] = []
        for shard in entry.shards:
            rows, keys = _read_shard(cache, shard, entry)
            shards.append(rows)
            self.keys += keys
        self.position = {key: i for i, key in enumerate(self.keys)}
        self._rows = MappedRows(shards, np.arange(len(self.keys)))

    def images(self, rows: NDArray[np.int64]) -> Tensor:
        """Return the images of some rows, uint8 [B, 3, R, R]."""
        found = self._rows[rows]
        if self.kind == "raw":
            return torch.from_numpy(found)
        return torch.stack([_decoded(image) for image in found])


def _read_shard(cache: Path, shard: ShardEntry, entry: PixelsEntry) -> tuple[Any, list[str]]:
    path = cache / shard.file
    with open_side_shard(cache, shard) as file:
        keys = read_strings(file, "key")
        rows: Any
        if entry.kind == "raw":
            rows = mapped_column(path, file, "pixels", kind="u", ndim=(4,))
            if rows.shape[1:] != (3, entry.side, entry.side):
                raise ValueError(f"pixels have the shape {rows.shape}")
        else:
            rows = mapped_blobs(path, file, "jpeg")
        if not len(rows) == len(keys) == shard.rows:
            raise ValueError("its columns differ in length")
    return rows, keys


def _decoded(encoded: NDArray[np.uint8]) -> Tensor:
    with Image.open(io.BytesIO(encoded.tobytes())) as image:
        return torch.from_numpy(np.array(image)).permute(2, 0, 1)
