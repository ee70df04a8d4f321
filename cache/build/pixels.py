"""The images themselves in a cache, decoded and squashed once: ``pixels/SPLIT-00000.h5``.

``raw`` is uint8 [n, 3, R, R], contiguous, so that training maps it and decodes nothing; ``jpeg`` is JPEG of
quality 95, a seventh of the bytes, decoded at each use.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.runtime.loader_workers import begin_worker, begun
from cache.runtime.progress import Progress
from cache.sources.image_folder import ImageFolder, UnreadableImage, squashed
from cache.sources.samples import Record
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


@dataclass(frozen=True, kw_only=True)
class PixelOptions:
    """Images of ``side`` x ``side``, ``raw`` or ``jpeg``, decoded in ``workers`` processes."""

    side: int
    encoding: str = "raw"
    workers: int = 1


def write_pixels(
    manifest: Manifest, out: Path, folder: ImageFolder, options: PixelOptions, progress: Progress
) -> Manifest:
    """Keep every image that has a row; continue what is there.

    Raises
    ------
    UserError
        If an image cannot be read any more.
    """
    write = _write_raw if options.encoding == "raw" else _write_jpeg
    empty = PixelsColumn(side=options.side, encoding=options.encoding)
    plan = ColumnPlan(
        name=FOLDER,
        empty=empty,
        splits=SPLITS,
        images_per_shard=IMAGES_PER_SHARD,
        write=lambda path, records: write(path, records, options, progress.advance),
    )
    return write_column_shards(manifest, out, folder, plan, progress)


class _Squashed(Dataset[Any]):
    """Decodes and squashes one image; runs in workers."""

    def __init__(self, records: Sequence[Record], options: PixelOptions) -> None:
        self.records, self.options = records, options

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        record = self.records[index]
        try:
            pixels = squashed(record.path, self.options.side)
        except UnreadableImage as error:
            raise UserError(
                f"{record.where} cannot be read any more ({error})", fix="bring it back."
            ) from error
        return pixels.numpy() if self.options.encoding == "raw" else _encoded(pixels)


def _encoded(pixels: Tensor) -> NDArray[np.uint8]:
    buffer = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(buffer, format="jpeg", quality=JPEG_QUALITY)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def _as_list(items: list[NDArray[np.uint8]]) -> list[NDArray[np.uint8]]:
    return items


def _batches(records: Sequence[Record], options: PixelOptions) -> DataLoader[list[NDArray[np.uint8]]]:
    return DataLoader(
        _Squashed(records, options),
        batch_size=BATCH,
        num_workers=options.workers,
        worker_init_fn=begin_worker,
        collate_fn=_as_list,
        prefetch_factor=2 if options.workers else None,
    )


def _write_raw(
    path: Path, records: Sequence[Record], options: PixelOptions, advance: Callable[[int], None]
) -> None:
    with open_hdf5(path, "w") as file:
        write_strings(file, "key", [record.key for record in records])
        shape = (len(records), 3, options.side, options.side)
        pixels, sums = file.create_dataset("pixels", shape=shape, dtype=np.uint8), np.empty(0, np.uint32)
        for batch in begun(_batches(records, options)):
            images = np.stack(batch)
            pixels[len(sums) : len(sums) + len(batch)] = images
            sums = np.append(sums, row_sums(images))
            advance(len(batch))
        write_sums(file, "pixels", sums)


def _write_jpeg(
    path: Path, records: Sequence[Record], options: PixelOptions, advance: Callable[[int], None]
) -> None:
    encoded: list[NDArray[np.uint8]] = []
    for batch in begun(_batches(records, options)):
        encoded += batch
        advance(len(batch))
    with open_hdf5(path, "w") as file:
        write_strings(file, "key", [record.key for record in records])
        write_blobs(file, "jpeg", encoded)
