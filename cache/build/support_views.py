"""Augmented views of images, kept for few-shot retrieval: ``support_views``.

A view is what the teacher says of a copy by RandAugment; the plain image's row is there already. Which images
have views is a matter of the whole split: the first of each class, by key.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cache.build.columns import Column, GroupRows, Made, Tools, Wanted
from cache.build.embed_views import embed_views, seed_of
from cache.runtime.atomic_files import digest
from cache.sources.resizing import less_thin
from cache.store.journal import RowGroup
from cache.store.row_group import read_keys
from cache.store.support_views import COLUMN, SupportViewsSettings

if TYPE_CHECKING:
    from cache.teacher.teacher import Teacher

# Augmented before the teacher's own resize and crop, at the size the original research code did it at.
MARGIN = 256 / 224


@dataclass(frozen=True, kw_only=True)
class SupportViews(Column):
    """Views of the first ``shots`` images of each class, 0 for all, as the settings say.

    Of how many images is no setting: that is seen in the rows, and another number of them remakes no group
    whose rows stay.

    A file holds ``row`` int32 [m], the rows of the group that have views, and ``view_embedding``
    [m, V - 1, D], raw, in the cache's dtype.
    """

    # The training images too, because alpha and beta are chosen on ID classes.
    BASE, SPLITS = COLUMN, ("train", "ood_test")
    of: SupportViewsSettings
    shots: int

    def wanted(self, cache: Path, groups: Sequence[RowGroup]) -> Sequence[Wanted | None]:
        """Return of each group its rows that are among the first of their class."""
        if not self.shots:
            return [Wanted() for _ in groups]
        chosen: list[list[int]] = [[] for _ in groups]
        for number, row in _first_of_each_class(cache, groups, self.shots):
            chosen[number].append(row)
        return [
            Wanted(of=digest(sorted(rows)), rows=tuple(sorted(rows))) if rows else None for rows in chosen
        ]

    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Embed the augmented copies of a group's images; UserError if one cannot be read any more."""
        assert tools.teacher is not None
        copies = self.of.views - 1
        rows = embed_views(tools, group.samples, _Views(group.keys.keys, tools.teacher, self.of), copies)
        return {"row": group.at.astype(np.int32), "view_embedding": rows}, {"shots": self.shots}


def _first_of_each_class(cache: Path, groups: Sequence[RowGroup], shots: int) -> Iterator[tuple[int, int]]:
    """Yield (group, row) of the first images of every class by key, of those that are seen.

    No more than ``shots`` a class are held, however many rows there are.
    """
    first: dict[str, list[tuple[str, int, int]]] = {}
    for number, group in enumerate(groups):
        keys = read_keys(cache, group.keys)
        for row, (key, labels) in enumerate(zip(keys.keys, keys.labels, strict=True)):
            if row in group.removed or not labels:
                continue
            of_class = first.setdefault(labels[0], [])
            if len(of_class) < shots or key < of_class[-1][0]:
                bisect.insort(of_class, (key, number, row))
                del of_class[shots:]
    yield from ((number, row) for of_class in first.values() for _, number, row in of_class)


class _Views:
    """Draws an image's augmented copies."""

    def __init__(self, keys: Sequence[str], teacher: Teacher, settings: SupportViewsSettings) -> None:
        from cache.runtime.torchvision_compat import torchvision

        self.keys, self.transform, self.copies = keys, teacher.in_workers, settings.views - 1
        side = round(max(teacher.spec.image_size) * MARGIN)
        self.resize = torchvision.transforms.Resize(side)
        self.augment = torchvision.transforms.RandAugment(settings.operations, settings.magnitude)

    def __call__(self, index: int, image: Image.Image) -> Tensor:
        image = self.resize(less_thin(image))
        # Torch's generator is the one that RandAugment draws from: the same copies wherever they are drawn.
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed_of(self.keys[index]))
            return torch.stack([self.transform(self.augment(image)) for _ in range(self.copies)])
