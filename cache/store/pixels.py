"""Reads the pixels that a cache keeps, decoded or as JPEG, by row."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.errors import UserError, reason_of
from cache.store.hdf5_columns import BLOBS
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import READ_ERRORS, REPAIR
from cache.store.split_rows import SplitRows

COLUMN = "pixels"
RAW, JPEG = "raw", "jpeg"
ENCODINGS = (RAW, JPEG)
# What the dataset of each is called.
DATASETS = {RAW: "pixels", JPEG: "jpeg"}


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelsSettings:
    """Images squashed to ``side`` x ``side``, ``encoding`` raw or jpeg; ValueError for another encoding."""

    side: int
    encoding: str

    def __post_init__(self) -> None:
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding is {self.encoding!r:.40}")


class StoredPixels:
    """The kept images of one split, uint8 [n, 3, R, R]; see :meth:`cache.reader.EmbeddingCache.pixels`.

    Rows are those of the split.
    """

    def __init__(self, rows: SplitRows, column: str, settings: PixelsSettings) -> None:
        """Open the column of that name, which every group has; UserError where a file is damaged."""
        self.side, self.encoding = settings.side, settings.encoding
        self.find = rows.find
        self._cache = rows.groups.cache
        dataset = DATASETS[self.encoding]
        if self.encoding == RAW:
            shape = (3, self.side, self.side)
            of_groups = rows.groups.arrays(column, {dataset: ("u", (4,))}, below={dataset: shape})
            self._rows = MappedRows([arrays[dataset] for arrays in of_groups], rows.groups.index.order)
        else:
            self._rows = rows.groups.column(column, dataset, BLOBS)

    def images(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the images of some rows, uint8 [B, 3, R, R]; UserError where one is damaged."""
        images = self._rows[rows]
        if self.encoding == RAW:
            return images
        decoded = np.empty((len(images), 3, self.side, self.side), dtype=np.uint8)
        for row, image in enumerate(images):
            decoded[row] = self._decoded(image)
        return decoded

    def _decoded(self, encoded: NDArray[np.uint8]) -> NDArray[np.uint8]:
        try:
            with Image.open(io.BytesIO(encoded.tobytes()), formats=("JPEG",)) as image:
                if image.size != (self.side, self.side) or image.mode != "RGB":
                    raise ValueError(f"it is {image.mode} of {image.width} x {image.height}")
                return np.array(image).transpose(2, 0, 1)
        # SyntaxError is Pillow's for a broken header.
        except (*READ_ERRORS, SyntaxError, Image.DecompressionBombError) as error:
            raise UserError(
                f"one of the jpeg pixels in {self._cache} is damaged ({reason_of(error)})", fix=REPAIR
            ) from error
