"""Views of images to learn from and what the teacher says of each, for training to replay: ``crop_views``.

A good teacher is patient and consistent (Beyer et al., 2022), and a view can be made again from what it was
drawn as (Faghri et al., 2023): box, flip and a seed of RandAugment are kept beside the teacher's embedding.
The box is kept as fractions (left, top, width, height) of the image, so that students of every size can
replay it, and its shape is drawn on the image squashed to a square, which is what students see.

The operations, the region and the flip are the same for both. The resampling is not: the teacher's crop is
cut from the decoded photo (with ``squash`` from its 256 x 256) and resized by the teacher's own interpolation
with antialiasing, the student's is sampled bilinearly from the image squashed to R x R. RandAugment is of the
whole picture squashed to a square, of which the crop is cut then: 256/224 of the side that either takes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Generator, Tensor

from cache.build.columns import Column, GroupRows, Made, Tools
from cache.build.embed_views import embed_views, seed_of
from cache.build.support_views import MARGIN
from cache.sources.crop_boxes import GRID, crop_boxes
from cache.sources.rand_augment import operations_of_seeds, rand_augment
from cache.sources.resizing import resized
from cache.sources.splits import POOL
from cache.store.crop_views import COLUMN, CropViewsSettings
from cache.store.manifest_lines import ListedFile
from cache.store.projections import load_projection
from cache.store.spec import SQUASH, SQUASH_SIZE

if TYPE_CHECKING:
    from cache.teacher.teacher import Teacher

# Of an int32, from 0 on.
SEEDS = 2**31


@dataclass(frozen=True, kw_only=True)
class CropViews(Column):
    """Views of every image that is learnt from, as the settings say.

    A file holds ``box`` [n, V, 4] float32, ``flip`` [n, V] bool, ``seed`` [n, V] int32 and ``view_embedding``
    [n, V, D], raw, in the cache's dtype; or by a ``projection`` ``view_code`` [n, V, K] int8 and
    ``view_scale`` [n, V] float32.
    """

    BASE, SPLITS = COLUMN, ("train", POOL)
    of: CropViewsSettings
    projection: ListedFile | None = None

    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Embed the views of a group's images.

        Raises
        ------
        UserError
            If an image cannot be read any more, or an embedding does not fit the cache's dtype.
        """
        assert tools.teacher is not None
        count = self.of.views
        drawn = [draw_views(key, count, self.of.scale) for key in group.keys.keys]
        rows = embed_views(tools, group.samples, _Seen(drawn, tools.teacher, self.of), count)
        values = {
            "box": np.stack([views.box for views in drawn]),
            "flip": np.stack([views.flip for views in drawn]),
            "seed": np.stack([views.seed for views in drawn]),
        }
        if self.projection is None:
            values["view_embedding"] = rows
        else:
            by = load_projection(
                group.cache / self.projection.file, sha256=self.projection.sha256, embed_dim=rows.shape[-1]
            )
            values["view_code"], values["view_scale"] = by.encoded(rows)
        return {name: group.spread(value) for name, value in values.items()}, {}


@dataclass(frozen=True, kw_only=True, slots=True)
class Views:
    """An image's views: ``box`` float32 [V, 4] in fractions, ``flip`` bool [V], ``seed`` int32 [V]."""

    box: NDArray[np.float32]
    flip: NDArray[np.bool_]
    seed: NDArray[np.int32]


def draw_views(key: str, views: int, scale: float) -> Views:
    """Return an image's views; view v is a function of the image's key, of v and of ``scale`` alone."""
    generator = Generator().manual_seed(seed_of(key))
    boxes, flips, seeds = [], [], []
    for _ in range(views):
        boxes.append(crop_boxes(1, GRID, scale=(scale, 1.0), generator=generator) / GRID)
        flips.append(torch.rand(1, generator=generator) < 0.5)
        seeds.append(torch.randint(SEEDS, (1,), generator=generator))
    box, flip, seed = (torch.cat(drawn).numpy() for drawn in (boxes, flips, seeds))
    return Views(box=box, flip=flip, seed=seed.astype(np.int32))


class _Seen:
    """Makes an image's views as the teacher takes them."""

    def __init__(self, drawn: Sequence[Views], teacher: Teacher, settings: CropViewsSettings) -> None:
        self.drawn, self.spec, self.settings = drawn, teacher.spec, settings
        self.transform, self.sends_pixels = teacher.transform, teacher.takes_pixels

    def __call__(self, index: int, image: Image.Image) -> Tensor:
        from cache.runtime.torchvision_compat import torchvision

        resampling = Image.Resampling.BICUBIC
        if self.spec.preprocessing == SQUASH:
            image = resized(image, SQUASH_SIZE, SQUASH_SIZE, Image.Resampling.BILINEAR)
        elif self.spec.interpolation == "bilinear":
            resampling = Image.Resampling.BILINEAR
        f = torchvision.transforms.functional
        drawn, size = self.drawn[index], self.spec.image_size
        views = [
            _view(picture, box, flip, size, resampling)
            for picture, box, flip in zip(
                self._augmented(image, drawn), drawn.box.tolist(), drawn.flip.tolist(), strict=True
            )
        ]
        if not self.spec.mean:  # of one's own code, which alone knows
            return torch.stack([self.transform(view) for view in views])
        if self.sends_pixels:
            return torch.stack([f.pil_to_tensor(view) for view in views])
        pixels = torch.stack([f.to_tensor(view) for view in views])
        return f.normalize(pixels, mean=self.spec.mean, std=self.spec.std)

    def _augmented(self, image: Image.Image, drawn: Views) -> list[Image.Image]:
        """Return of every view the whole picture, of which it is cut."""
        settings = self.settings
        if not settings.operations:
            return [image] * len(drawn.seed)
        side = round(max(self.spec.image_size) * MARGIN)
        squashed = np.asarray(resized(image, side, side, Image.Resampling.BILINEAR))
        copies = torch.from_numpy(squashed.copy()).permute(2, 0, 1).expand(len(drawn.seed), -1, -1, -1)
        operations = operations_of_seeds(drawn.seed.tolist(), num_ops=settings.operations)
        augmented = rand_augment(copies, operations, magnitude=settings.magnitude)
        return [Image.fromarray(one.permute(1, 2, 0).numpy()) for one in augmented]


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
