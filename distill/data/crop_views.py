"""The views that a cache keeps of the training images, as training replays them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.samples import Sample
from distill.config import DataConfig
from distill.data.batch import Crops

if TYPE_CHECKING:
    from cache.store.crop_views import StoredCropViews


@dataclass(frozen=True, kw_only=True)
class TrainingViews:
    """V views of every training image: those of image i are in row ``row_of[i]`` of ``stored``."""

    stored: StoredCropViews
    row_of: NDArray[np.int64]

    def draw(self, chosen: NDArray[np.int64], generator: Generator) -> Crops:
        """Return one view of each of some images, drawn from a CPU generator."""
        drawn = torch.randint(self.stored.views, (len(chosen),), generator=generator)
        boxes, flips = self.stored.crops(self.row_of[chosen], drawn.numpy())
        return Crops(view_B=drawn, box_B4=torch.from_numpy(boxes), flip_B=torch.from_numpy(flips))

    def embeddings(self, chosen: NDArray[np.int64], crops: Crops) -> NDArray[Any]:
        """Return the teacher's embeddings of these views of some images, [B, D], raw."""
        return self.stored.embeddings(self.row_of[chosen], crops.view_B.numpy())


def open_views(
    cache: EmbeddingCache, images: Sequence[Sample], config: DataConfig, *, pool: int = 0
) -> TrainingViews | None:
    """Return the views of the training images, None where the config wants none.

    UserError if some are of the ``pool``, of which a cache keeps no views, or if it does not keep them of
    every image; CacheMismatch if they are crops of another size than the config says.
    """
    if not config.views:
        return None
    if pool:
        raise UserError(
            f"data.views replays crops that a cache keeps of train, and {pool:,} images are of the pool",
            fix="set data.pool_share=0, or data.views=false.",
        )
    from cache.store.crop_views import ADD_VIEWS

    stored = cache.crop_views("train")
    row_of = stored.find([image.key for image in images])
    missing = [images[i].key for i in np.flatnonzero(row_of < 0).tolist()]
    if missing:
        raise UserError(
            f"the cache {cache.path} keeps no views of {len(missing)} of {len(images)} training images "
            f"({', '.join(missing[:3])})",
            fix=ADD_VIEWS,
        )
    if stored.scale != config.scale_min:
        raise CacheMismatch(
            f"data.scale_min is {config.scale_min:g}, but the views in {cache.path} are crops of at least "
            f"{stored.scale:g} of the area",
            fix=f"set data.scale_min={stored.scale:g}, or make others: the same cache-features command with "
            f"--views {stored.views} --views-scale {config.scale_min:g}.",
        )
    return TrainingViews(stored=stored, row_of=row_of)
