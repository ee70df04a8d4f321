"""Crops of the training images and what the teacher says of each, for training to replay: ``crop_views``.

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
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Generator, Tensor

from cache.build.columns import Column, GroupRows, Made, Tools
from cache.build.embed_views import embed_views, seed_of
from cache.sources.crop_boxes import crop_boxes
from cache.sources.resizing import resized
from cache.store.crop_views import COLUMN, CropViewsSettings
from cache.store.spec import SQUASH, SQUASH_SIZE, TeacherSpec

# Boxes lie on a grid so fine that it is below a pixel, whose fractions float32 holds exactly.
GRID = 4096


@dataclass(frozen=True, kw_only=True)
class CropViews(Column):
    """Crops of every image, as the settings say.

    A file holds ``box`` [n, V, 4] float32, ``flip`` [n, V] bool and ``view_embedding`` [n, V, D], raw, in the
    cache's dtype.
    """

    BASE, SPLITS = COLUMN, ("train",)
    of: CropViewsSettings

    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Embed the crops of a group's images.

        Raises
        ------
        UserError
            If an image cannot be read any more, or an embedding does not fit the cache's dtype.
        """
        assert tools.teacher is not None
        views = self.of.views
        crops = [draw_crops(key, views, self.of.scale) for key in group.keys.keys]
        rows = embed_views(tools, group.samples, _Crops(crops, tools.teacher.spec), views)
        boxes, flips = np.empty((len(group), views, 4), np.float32), np.empty(rows.shape[:2], bool)
        for i, (box, flip) in enumerate(crops):
            boxes[i], flips[i] = box.numpy(), flip.numpy()
        values = {"box": boxes, "flip": flips, "view_embedding": rows}
        return {name: group.spread(value) for name, value in values.items()}, {}


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


class _Crops:
    """Cuts an image's views out of it, as the teacher takes them."""

    def __init__(self, crops: Sequence[tuple[Tensor, Tensor]], spec: TeacherSpec) -> None:
        self.crops, self.spec = crops, spec

    def __call__(self, index: int, image: Image.Image) -> Tensor:
        from cache.runtime.torchvision_compat import torchvision

        resampling = Image.Resampling.BICUBIC
        if self.spec.preprocessing == SQUASH:
            image = resized(image, SQUASH_SIZE, SQUASH_SIZE, Image.Resampling.BILINEAR)
        elif self.spec.interpolation == "bilinear":
            resampling = Image.Resampling.BILINEAR
        f = torchvision.transforms.functional
        views = [
            f.to_tensor(_view(image, box, flip, self.spec.image_size, resampling))
            for box, flip in zip(*(part.tolist() for part in self.crops[index]), strict=True)
        ]
        return f.normalize(torch.stack(views), mean=self.spec.mean, std=self.spec.std)


def _view(
    image: Image.Image, box: Sequence[float], flip: bool, sides: Sequence[int], resampling: Image.Resampling
) -> Image.Image:
    left, top, width, height = box
    edges = (
        left * image.width,
        top * image.height,
        (left + width) * image.width,
        (top + height) * image.height,
    )
    view = resized(image, sides[1], sides[0], resampling, edges)
    return view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else view
