"""Few labelled images of the OOD classes: which ones (the support), what is left to test on (the query)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.samples import DataFolder
from cache.sources.splits import FOLDERS
from cache.store.mapped_arrays import MappedRows
from cache.store.split_rows import SplitRows
from distill.config import FewShotConfig

QUERY = "ood_query"
# Which rows of the cache a split's images have: few-shot's query and the part set aside are parts of others.
ROWS_OF = {"id_val": "train", "ood_query": "ood_test"}


def rows_of(cache: EmbeddingCache, split: str) -> SplitRows | None:
    """Return the rows of a split's images, None where a cache has none."""
    name = ROWS_OF.get(split, split)
    return cache.split(name) if name in cache.split_names else None


def pick_support(
    keys_by_class: Mapping[str, Sequence[str]], *, shots: int, seed: int = -1, leave: int = 1
) -> list[str]:
    """Return ``shots`` distinct image keys of every class, class after class.

    With seed -1 the first ones, sorted by key, as in the paper; any other seed draws them. What is drawn of a
    class depends on its keys alone, on no other class and no order of files. ``leave`` is how many images of
    each class must be left over, to test on. UserError if a class has too few images.
    """
    support: list[str] = []
    for name in sorted(keys_by_class):
        keys = sorted(keys_by_class[name])
        if len(keys) < shots + leave:
            and_then = " would leave none to test on" if leave else " are too many"
            raise UserError(
                f"class {name!r} has {len(keys)} images, so {shots} shots{and_then}",
                fix=f"lower --shots to {len(keys) - leave}, or drop the class."
                if len(keys) > leave
                else "add images of it, or drop the class.",
            )
        if seed < 0:
            support += keys[:shots]
            continue
        rng = np.random.default_rng([seed, *name.encode()])
        support += [keys[i] for i in sorted(rng.choice(len(keys), size=shots, replace=False))]
    return support


def support_of(cache: EmbeddingCache, folder: DataFolder, config: FewShotConfig) -> list[str]:
    """Return the keys of the support, none without shots: of the OOD images that have a teacher row.

    So many of every class, class after class; of episodes, which show several objects, so many of all.
    CacheMismatch if the OOD classes of the data and of the cache differ; UserError if either has no OOD test,
    or it has too few.
    """
    if not config.shots:
        return []
    if "ood_test" not in folder.splits:
        raise UserError(
            f"few-shot learning teaches OOD classes, and {folder.path} has none "
            f"(no {folder.split_is.format(FOLDERS['ood_test'])})",
            fix=f"lay images of other classes than train's out as {FOLDERS['ood_test']}, and run "
            "cache-features again.",
        )
    ood, rows = folder.split("ood_test"), cache.split("ood_test")
    if rows.class_names != ood.classes:
        raise CacheMismatch(
            f"the OOD classes of the data and of {cache.path} differ",
            fix="give the data folder that the cache was made from.",
        )
    row_of = rows.find([image.key for image in ood.all()])
    images = [image for image, row in zip(ood.all(), row_of.tolist(), strict=True) if row >= 0]
    if cache.holds_episodes:
        return pick_episodes([image.key for image in images], shots=config.shots, seed=config.support_seed)
    by_class: dict[str, list[str]] = {name: [] for name in ood.classes}
    for image in images:
        if image.labels:
            by_class[image.labels[0]].append(image.key)
    return pick_support(by_class, shots=config.shots, seed=config.support_seed)


def pick_episodes(keys: Sequence[str], *, shots: int, seed: int = -1) -> list[str]:
    """Return ``shots`` of some keys: the first, or those that a seed draws; UserError if none is left."""
    if len(keys) <= shots:
        raise UserError(
            f"there are {len(keys)} OOD episodes, so {shots} for few-shot would leave none to test on",
            fix=f"use at most {len(keys) - 1}.",
        )
    if seed < 0:
        return list(keys[:shots])
    rng = np.random.default_rng(seed)
    return [keys[i] for i in sorted(rng.choice(len(keys), size=shots, replace=False))]


class SupportRows:
    """The rows of training images, with those of few-shot images after them."""

    captions = None

    def __init__(
        self, train: SplitRows, ood: SplitRows, row_of: NDArray[np.int64], at: NDArray[np.int64]
    ) -> None:
        """Of the rows ``row_of`` of train, and ``at`` of the OOD test."""
        self._splits = train, ood
        self._order = np.concatenate([row_of, len(train) + at])
        self.class_names, self.labels = _joint_labels(train, ood, row_of, at)

    @cached_property
    def embeddings(self) -> MappedRows:
        """The rows of the images, [N, D]."""
        return MappedRows([split.embeddings for split in self._splits], self._order)

    @cached_property
    def caption_embeddings(self) -> MappedRows | None:
        """The rows of the captions, [N, D]; None where one of both splits has none."""
        columns = [split.caption_embeddings for split in self._splits]
        return None if None in columns else MappedRows(columns, self._order)


def _joint_labels(
    train: SplitRows, ood: SplitRows, row_of: NDArray[np.int64], at: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the ID classes then the OOD classes, and the labels among them of some rows of both splits.

    UserError if a photo's class is on both sides.
    """
    if train.labels.ndim == 2:  # the objects of OOD episodes begin with the trained ones
        new = len(ood.class_names) - len(train.class_names)
        return ood.class_names, np.concatenate(
            [np.pad(train.labels[row_of], ((0, 0), (0, new))), ood.labels[at]]
        )
    both = sorted(set(train.class_names) & set(ood.class_names))
    if both:
        raise UserError(
            f"the classes {', '.join(both[:3])} are in train/ and in val/",
            fix="an OOD class is never trained on: move its images to one side.",
        )
    labels = np.concatenate([train.labels[row_of], ood.labels[at] + len(train.class_names)])
    return train.class_names + ood.class_names, labels
