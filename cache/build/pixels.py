"""The images themselves in a cache, decoded and squashed once: ``pixels``.

``raw`` is uint8 [n, 3, R, R], contiguous, so that training maps it and decodes nothing; ``jpeg`` is JPEG of
quality 95, a seventh of the bytes, decoded at each use.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.build.columns import Column, GroupRows, Made, Tools
from cache.build.embed_views import Decoded, decoded
from cache.store.hdf5_columns import Blobs, Blocks
from cache.store.pixels import COLUMN, DATASETS, JPEG, RAW, PixelsSettings

JPEG_QUALITY = 95
BATCH = 32


@dataclass(frozen=True, kw_only=True)
class Pixels(Column):
    """The images, as the settings say.

    A file holds ``pixels`` uint8 [n, 3, R, R], or ``jpeg``: n byte strings.
    """

    BASE = COLUMN
    of: PixelsSettings

    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Decode and squash a group's images; UserError if one cannot be read any more."""
        blocks = _blocks(group, tools, self.of)
        if self.of.encoding == RAW:
            # Block by block: a group of whole photos is 13 GB.
            shape = (group.group.rows, 3, self.of.side, self.of.side)
            return {DATASETS[RAW]: Blocks(shape=shape, dtype=np.dtype(np.uint8), blocks=blocks)}, {}
        encoded = [b""] * group.group.rows
        for rows, images in blocks:
            for row, image in zip(rows.tolist(), images, strict=True):
                encoded[row] = image.tobytes()
        return {DATASETS[JPEG]: Blobs(encoded)}, {}


@dataclass(frozen=True)
class _Squashed:
    """Squashes a picture: uint8 [3, R, R], or the bytes of its JPEG."""

    settings: PixelsSettings

    def __call__(self, index: int, image: Image.Image) -> NDArray[np.uint8]:
        del index
        side = self.settings.side
        pixels = np.array(image.resize((side, side), Image.Resampling.BILINEAR))
        if self.settings.encoding == RAW:
            return np.ascontiguousarray(pixels.transpose(2, 0, 1))
        buffer = io.BytesIO()
        # Of the pixels alone, without the comments of its file.
        Image.fromarray(pixels).save(buffer, format="jpeg", quality=JPEG_QUALITY)
        return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def _blocks(
    group: GroupRows, tools: Tools, settings: PixelsSettings
) -> Iterator[tuple[NDArray[np.int64], list[NDArray[np.uint8]]]]:
    """Yield (rows of the group, their images), in order."""
    images = Decoded(group.samples, _Squashed(settings))
    for here, batch in decoded(images, group.samples, tools.workers, BATCH, _with_reasons):
        yield group.at[here], batch
        tools.progress.advance(len(batch))


def _with_reasons(items: list[Any]) -> tuple[list[str], list[Any]]:
    return [item if isinstance(item, str) else "" for item in items], items
