"""The images themselves in a cache, decoded and squashed once: ``pixels/SPLIT-00000.h5``.

``raw`` is uint8 [n, 3, R, R], contiguous, so that training maps it and decodes nothing; ``jpeg`` is JPEG of
quality 95, a seventh of the bytes, decoded at each use.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch.utils.data import Dataset

from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.runtime.loader_workers import batches
from cache.runtime.progress import Progress
from cache.sources.image_folder import ImageFolder, squashed
from cache.sources.samples import Sample, UnreadableImage
from cache.sources.splits import SPLITS
from cache.store.column_shards import ColumnPlan, write_column_shards
from cache.store.hdf5_columns import write_blobs, write_strings, write_sums
from cache.store.manifest import Manifest
from cache.store.manifest_lines import PixelsColumn
from cache.store.mapped_arrays import row_sums

FOLDER = "pixels"
JPEG_QUALITY = 95
IMAGES_PER_SHARD = 2048
BATCH = 32


def write_pixels(
    manifest: Manifest,
    out: Path,
    folder: ImageFolder,
    column: PixelsColumn,
    progress: Progress,
    *,
    workers: int = 1,
) -> Manifest:
    """Keep every image that has a row as an empty ``column`` says; continue what is there.

    Raises
    ------
    UserError
        If an image cannot be read any more.
    """
    write = _write_raw if column.encoding == "raw" else _write_jpeg
    plan = ColumnPlan(
        name=FOLDER,
        empty=column,
        splits=SPLITS,
        images_per_shard=IMAGES_PER_SHARD,
        write=lambda path, samples: write(path, _Squashed(samples, column), workers, progress.advance),
    )
    return write_column_shards(manifest, out, folder, plan, progress)


class _Squashed(Dataset[Any]):
    """Decodes and squashes one image; runs in workers."""

    def __init__(self, samples: Sequence[Sample], column: PixelsColumn) -> None:
        self.samples, self.column = samples, column

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        sample = self.samples[index]
        try:
            pixels = squashed(sample.pictures()[0], self.column.side)
        except UnreadableImage as error:
            raise UserError(
                f"{sample.where} cannot be read any more ({error})", fix="bring it back."
            ) from error
        if self.column.encoding == "raw":
            return pixels.numpy()
        buffer = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="jpeg", quality=JPEG_QUALITY)
        return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def _write_raw(path: Path, images: _Squashed, workers: int, advance: Callable[[int], None]) -> None:
    with open_hdf5(path, "w") as file:
        write_strings(file, "key", [sample.key for sample in images.samples])
        shape = (len(images), 3, images.column.side, images.column.side)
        pixels, sums = file.create_dataset("pixels", shape=shape, dtype=np.uint8), np.empty(0, np.uint32)
        for batch in batches(images, workers, batch_size=BATCH, collate_fn=list):
            stacked = np.stack(batch)
            pixels[len(sums) : len(sums) + len(batch)] = stacked
            sums = np.append(sums, row_sums(stacked))
            advance(len(batch))
        write_sums(file, "pixels", sums)


def _write_jpeg(path: Path, images: _Squashed, workers: int, advance: Callable[[int], None]) -> None:
    encoded: list[NDArray[np.uint8]] = []
    for batch in batches(images, workers, batch_size=BATCH, collate_fn=list):
        encoded += batch
        advance(len(batch))
    with open_hdf5(path, "w") as file:
        write_strings(file, "key", [sample.key for sample in images.samples])
        write_blobs(file, "jpeg", encoded)
