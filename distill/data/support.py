"""Few labelled images of the OOD classes: which ones (the support), what is left to test on (the query)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.samples import DataFolder, Source
from cache.sources.splits import FOLDERS
from cache.store.split_rows import SplitRows
from distill.config import FewShotConfig
from distill.data.joined_rows import JoinedRows
from distill.data.training_rows import TrainingRows

QUERY = "ood_query"
# Which rows of the cache a split's images have: few-shot's query and what is set aside are parts of others.
ROWS_OF = {"id_val": "train", "class_val": "train", "pool_val": "pool", "ood_query": "ood_test"}


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


def join_support(
    joined: TrainingRows, cache: EmbeddingCache, ood: Source, support: Sequence[str]
) -> TrainingRows:
    """Return the training images with the support after them, labelled among ID then OOD classes.

    UserError if a photo's class is on both sides.
    """
    of_ood = cache.split("ood_test")
    at = of_ood.find(support)
    names, labels = _joint_labels(joined, of_ood, at)
    return replace(
        joined,
        rows=JoinedRows((*joined.parts, (of_ood, at)), names, labels),
        taken=(*joined.taken, ("ood_test", tuple(ood.samples(support)))),
        row_of=np.arange(len(joined.row_of) + len(support)),
        support=len(support),
    )


def _joint_labels(
    joined: TrainingRows, ood: SplitRows, at: NDArray[np.int64]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return the ID classes then the OOD classes, and the labels among them of the images and some OOD rows.

    UserError if a photo's class is on both sides.
    """
    learnt, labels = joined.rows.class_names, joined.labels
    if labels.ndim == 2:  # the objects of OOD episodes begin with the trained ones
        new = len(ood.class_names) - len(learnt)
        return ood.class_names, np.concatenate([np.pad(labels, ((0, 0), (0, new))), ood.labels[at]])
    both = sorted(set(learnt) & set(ood.class_names))
    if both:
        raise UserError(
            f"the classes {', '.join(both[:3])} are in train/ and in val/",
            fix="an OOD class is never trained on: move its images to one side.",
        )
    return learnt + ood.class_names, np.concatenate([labels, ood.labels[at] + len(learnt)])
