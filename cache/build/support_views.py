"""Augmented views of images, kept for few-shot retrieval: ``support_views/SPLIT-00000.h5``.

A view is what the teacher says of a copy by RandAugment; the plain image's row is in the image
shards already. Shards hold the keys of their images; which images they are, and how they were made, is
in the manifest, so that a build that is killed or repeated redoes only what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cache.build.options import Build
from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.runtime.loader_workers import batches
from cache.runtime.transfer import one_behind
from cache.sources.samples import Sample, UnreadableImage
from cache.store.column_shards import ColumnPlan, write_column_shards
from cache.store.hdf5_columns import write_column, write_strings
from cache.store.manifest import Manifest
from cache.store.manifest_lines import SupportViewsColumn
from cache.teacher.sanity import stored

if TYPE_CHECKING:
    from cache.teacher.open_clip_model import Teacher

FOLDER = "support_views"
# The training images too, because alpha and beta are chosen on ID classes.
SPLITS = ("train", "ood_test")
IMAGES_PER_SHARD = 512
# Augmented before the teacher's own resize and crop, at the size the original research code did it at.
MARGIN = 256 / 224


def seed_of(key: str) -> int:
    """Return what an image's views are drawn from: a function of its key alone."""
    return int.from_bytes(sha256(key.encode()).digest()[:7], "big")


def write_support_views(manifest: Manifest, build: Build) -> Manifest:
    """Embed augmented copies of the training and OOD images that have a row; continue what is there.

    Raises
    ------
    UserError
        If an image cannot be read any more.
    """
    column = SupportViewsColumn(views=build.options.support_views)

    def write(path: Path, samples: Sequence[Sample]) -> None:
        rows = embed_views(build, samples, _Views(samples, build.teacher, column), column.views - 1)
        with open_hdf5(path, "w") as shard:
            write_strings(shard, "key", [sample.key for sample in samples])
            write_column(shard, "view_embedding", rows)

    plan = ColumnPlan(
        name=FOLDER,
        empty=column,
        splits=SPLITS,
        images_per_shard=IMAGES_PER_SHARD,
        write=write,
        shots=build.options.support_shots,
    )
    return write_column_shards(manifest, build.out, build.folder, plan, build.progress)


class _Views(Dataset[Tensor]):
    """Decodes an image and draws its augmented copies; runs in workers."""

    def __init__(self, samples: Sequence[Sample], teacher: Teacher, column: SupportViewsColumn) -> None:
        from cache.runtime.torchvision_compat import torchvision

        self.samples, self.transform, self.copies = samples, teacher.transform, column.views - 1
        side = round(teacher.spec.image_size * MARGIN)
        self.resize = torchvision.transforms.Resize(side)
        self.augment = torchvision.transforms.RandAugment(column.operations, column.magnitude)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor:
        sample = self.samples[index]
        image = self.resize(decoded(sample))
        # Torch's generator is the one that RandAugment draws from: the same copies wherever they are drawn.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(sample.key))
            return torch.stack([self.transform(self.augment(image)) for _ in range(self.copies)])


def decoded(sample: Sample) -> Image.Image:
    """Return the picture of a photo that has a row; UserError when it cannot be read any more."""
    try:
        return sample.pictures()[0]
    except UnreadableImage as error:
        raise UserError(
            f"{sample.where} cannot be read any more ({error})", fix="bring the file back."
        ) from error


def embed_views(
    build: Build, samples: Sequence[Sample], pictures: Dataset[Tensor], copies: int
) -> NDArray[Any]:
    """Return embeddings [n, V, D] of n images, raw, in the cache's dtype; raises as :func:`stored`.

    Each item of ``pictures`` is V ``copies`` of one image.
    """
    rows, options = [], build.options
    size = max(1, (options.batch_size or 1) // max(1, copies))
    views_of = batches(pictures, options.workers or 0, batch_size=size)
    started = ((views.shape[:2], build.teacher.start_images(views.flatten(0, 1))) for views in views_of)
    for shape, wait in one_behind(started):
        rows.append(wait().view(*shape, -1).numpy())
        build.progress.advance(len(rows[-1]))
    whole = np.concatenate(rows)
    return stored(whole, build.spec.dtype, lambda i: f"the row of a view of {samples[i].where}")
