"""The views that a cache keeps of the images that are learnt from, as training replays them.

The box, flip and operations that the teacher's row is of take the place of ``data.policy`` and
``data.scale_min``: a run that crops at all replays views wherever its cache has them of every image.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from cache import EmbeddingCache
from cache.sources.crop_boxes import GRID, crop_boxes
from cache.sources.rand_augment import operations_of_seeds
from distill.data.batch import Crops
from distill.data.training_rows import TrainingRows

if TYPE_CHECKING:
    from cache.store.crop_views import CropViewsSettings, StoredCropViews


@dataclass(frozen=True, kw_only=True)
class TrainingViews:
    """One teacher's views of the training images: those of image i are in row ``row_of[i]`` of a split's.

    That is ``stored[split_of[i]]``, None of few-shot images: these are cropped anew and have plain rows.
    """

    joined: TrainingRows
    settings: CropViewsSettings
    stored: tuple[StoredCropViews | None, ...]
    split_of: NDArray[np.int64]
    row_of: NDArray[np.int64]

    @classmethod
    def of(cls, cache: EmbeddingCache, joined: TrainingRows, settings: CropViewsSettings) -> TrainingViews:
        """Open the views of images by the teacher that the cache is seen as; UserError as ``crop_views``."""
        names = list(dict.fromkeys(rows.name for rows, _ in joined.parts))
        split_of = [np.full(len(at), names.index(rows.name)) for rows, at in joined.parts]
        return cls(
            joined=joined,
            settings=settings,
            stored=tuple(None if name == "ood_test" else cache.crop_views(name) for name in names),
            split_of=np.concatenate(split_of),
            row_of=np.concatenate([at for _, at in joined.parts]),
        )

    def draw(self, chosen: NDArray[np.int64], generator: Generator) -> Crops:
        """Return one view each of some images, drawn from a CPU generator."""
        count, settings = len(chosen), self.settings
        drawn = torch.randint(settings.views, (count,), generator=generator)
        box, flip = torch.empty((count, 4)), torch.empty(count, dtype=torch.bool)
        # Of no view: the operation that does nothing.
        operation = torch.zeros((settings.operations, count), dtype=torch.int64)
        for stored, at, rows in self._by_split(chosen):
            if stored is None:
                box[at], flip[at] = self._anew(len(at), generator)
                continue
            views = drawn.numpy()[at]
            box[at], flip[at] = (torch.from_numpy(part) for part in stored.crops(rows, views))
            seeds = stored.seeds(rows, views).tolist()
            operation[:, at] = operations_of_seeds(seeds, num_ops=settings.operations)
        return Crops(
            view_B=drawn, box_B4=box, flip_B=flip, operation_OB=operation, magnitude=settings.magnitude
        )

    def embeddings(self, chosen: NDArray[np.int64], crops: Crops) -> NDArray[Any]:
        """Return the teacher's embeddings of these views of some images, [B, D], raw."""
        plain, row_of = self.joined.rows.embeddings, self.joined.row_of
        embeddings = np.empty((len(chosen), plain.shape[1]), dtype=np.float32)
        for stored, at, rows in self._by_split(chosen):
            views = crops.view_B.numpy()[at]
            own = plain[row_of[chosen[at]]] if stored is None else stored.embeddings(rows, views)
            embeddings[at] = own
        return embeddings

    def _anew(self, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
        scale = (self.settings.scale, 1.0)
        boxes = crop_boxes(count, GRID, scale=scale, generator=generator) / GRID
        return boxes, torch.rand(count, generator=generator) < 0.5

    def _by_split(
        self, chosen: NDArray[np.int64]
    ) -> Iterator[tuple[StoredCropViews | None, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield a split's views, which of the chosen are of it, and their rows there."""
        of = self.split_of[chosen]
        for number, stored in enumerate(self.stored):
            at = np.flatnonzero(of == number)
            if len(at):
                yield stored, at, self.row_of[chosen[at]]


def open_views(
    cache: EmbeddingCache, joined: Mapping[str, TrainingRows], settings: CropViewsSettings | None
) -> dict[str, TrainingViews]:
    """Return the views by every teacher, whose joined images these are; none where none are replayed."""
    if settings is None:
        return {}
    return {
        name: TrainingViews.of(cache.teacher_cache(name), images, settings) for name, images in joined.items()
    }
