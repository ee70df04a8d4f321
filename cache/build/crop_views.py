"""Crops of the training images and what the teacher says of each, for training to replay: ``crop_views/``.

A good teacher is patient and consistent (Beyer et al., 2022): the student sees the very crop that the
teacher saw. A view is a random-resized crop and perhaps a flip. Its box is kept as fractions (left, top,
width, height) of the image, so that students of every size can replay it, and its shape is drawn on the
image squashed to a square, which is what students see.

The region and the flip are the same for both. The resampling is not: the teacher's crop is cut from the
decoded photo (with ``squash`` from its 256 x 256) and resized by the teacher's own interpolation with
antialiasing, the student's is sampled bilinearly from the image squashed to R x R.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor
from torch.utils.data import Dataset

from cache.build.options import Build
from cache.build.support_views import decoded, embed_views, seed_of
from cache.runtime.hdf5_safety import open_hdf5
from cache.sources.crop_boxes import crop_boxes
from cache.sources.samples import Sample
from cache.store.column_shards import ColumnPlan, write_column_shards
from cache.store.hdf5_columns import write_column, write_strings
from cache.store.manifest import Manifest
from cache.store.manifest_lines import CropViewsColumn
from cache.store.spec import SQUASH_SIZE, TeacherSpec

FOLDER = "crop_views"
SPLITS = ("train",)
IMAGES_PER_SHARD = 512
# Boxes lie on a grid so fine that it is below a pixel, whose fractions float32 holds exactly.
GRID = 4096


def write_crop_views(manifest: Manifest, build: Build) -> Manifest:
    """Embed crops of every training image that has a row; continue what is there.

    A shard holds ``key`` [n], ``box`` [n, V, 4] float32, ``flip`` [n, V] bool and ``view_embedding``
    [n, V, D] raw in the cache's dtype.

    Raises
    ------
    UserError
        If an image cannot be read any more, or an embedding does not fit the cache's dtype.
    """

    views, scale = build.options.views or 0, build.options.views_scale

    def write(path: Path, samples: Sequence[Sample]) -> None:
        crops = [draw_crops(sample.key, views, scale) for sample in samples]
        rows = embed_views(build, samples, _Crops(samples, crops, build.teacher.spec), views)
        with open_hdf5(path, "w") as shard:
            write_strings(shard, "key", [sample.key for sample in samples])
            write_column(shard, "box", np.stack([boxes.numpy() for boxes, _ in crops]), dims=2)
            write_column(shard, "flip", np.stack([flips.numpy() for _, flips in crops]), dims=2)
            write_column(shard, "view_embedding", rows, dims=2)

    plan = ColumnPlan(
        name=FOLDER,
        empty=CropViewsColumn(views=views, scale=scale),
        splits=SPLITS,
        images_per_shard=IMAGES_PER_SHARD,
        write=write,
    )
    return write_column_shards(manifest, build.out, build.folder, plan, build.progress)


def draw_crops(key: str, views: int, scale: float) -> tuple[Tensor, Tensor]:
    """Return an image's boxes, float32 [V, 4] in fractions, and its flips, bool [V].

    View v is a function of the image's key, of v and of ``scale`` alone.
    """
    generator = Generator().manual_seed(seed_of(key))
    boxes, flips = [], []
    for _ in range(views):
        boxes.append(crop_boxes(1, GRID, scale=(scale, 1.0), generator=generator) / GRID)
        flips.append(torch.rand(1, generator=generator) < 0.5)
    return torch.cat(boxes), torch.cat(flips)


class _Crops(Dataset[Tensor]):
    """Decodes an image and cuts its views out of it, as the teacher takes them; runs in workers."""

    def __init__(
        self, samples: Sequence[Sample], crops: Sequence[tuple[Tensor, Tensor]], spec: TeacherSpec
    ) -> None:
        self.samples, self.crops, self.spec = samples, crops, spec

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        from cache.runtime.torchvision_compat import torchvision

        image = decoded(self.samples[index])
        resampling = Image.Resampling.BICUBIC
        if self.spec.preprocessing == "squash":
            image = image.resize((SQUASH_SIZE, SQUASH_SIZE), Image.Resampling.BILINEAR)
        elif self.spec.interpolation == "bilinear":
            resampling = Image.Resampling.BILINEAR
        f = torchvision.transforms.functional
        views = [
            f.to_tensor(_view(image, box, flip, self.spec.image_size, resampling))
            for box, flip in zip(*(part.tolist() for part in self.crops[index]), strict=True)
        ]
        return f.normalize(torch.stack(views), mean=self.spec.mean, std=self.spec.std)


def _view(
    image: Image.Image, box: Sequence[float], flip: bool, size: int, resampling: Image.Resampling
) -> Image.Image:
    left, top, width, height = box
    edges = (
        left * image.width,
        top * image.height,
        (left + width) * image.width,
        (top + height) * image.height,
    )
    view = image.resize((size, size), resampling, box=edges)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view
