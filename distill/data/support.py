"""Few labelled images of the OOD classes: which ones (the support), what is left to test on (the query)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cache import EmbeddingCache
from cache.reader import MappedRows, SplitRows
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.image_folder import ImageFolder, SplitImages
from distill.config import FewShotConfig
from distill.data.training_data import TrainingRows

QUERY = "ood_query"
# Which rows of the cache a split's images have: few-shot's query and the part set aside are parts of others.
ROWS_OF = {"id_val": "train", "ood_query": "ood_test"}


def pick_support(
    keys_by_class: Mapping[str, Sequence[str]], *, shots: int, seed: int = -1, leave: int = 1
) -> list[str]:
    """Return ``shots`` distinct image keys of every class, class after class.

    With seed -1 the first ones, sorted by key, as in the paper; any other seed draws them. What is
    drawn of a class depends on its keys alone, on no other class and no order of files. ``leave`` is how
    many images of each class must be left over, to test on.

    Raises
    ------
    UserError
        If a class has too few images.
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


def support_of(cache: EmbeddingCache, ood: SplitImages, config: FewShotConfig) -> list[str]:
    """Return the keys of the support: of the OOD images that have a teacher row, sorted by class.

    Raises
    ------
    CacheMismatch
        If the OOD classes of the data and of the cache differ.
    UserError
        If the cache has no OOD rows, or a class has too few.
    """
    rows = cache.split("ood_test")
    if rows.class_names != ood.class_names:
        raise CacheMismatch(
            f"the OOD classes of the data and of {cache.path} differ",
            fix="give the data folder that the cache was made from.",
        )
    by_class: dict[str, list[str]] = {name: [] for name in ood.class_names}
    for image in ood.images:
        if image.key in rows.position:
            by_class[ood.class_names[image.label]].append(image.key)
    return pick_support(by_class, shots=config.shots, seed=config.support_seed)


def query_of(ood: SplitImages, support: Sequence[str]) -> SplitImages:
    """Return the split ``ood_query``: all OOD images less the support, by key."""
    taken = set(support)
    return replace(ood, name=QUERY, images=tuple(image for image in ood.images if image.key not in taken))


def joint_classes(folder: ImageFolder) -> tuple[str, ...]:
    """Return the ID classes, then the OOD classes.

    Raises
    ------
    UserError
        If a class is on both sides.
    """
    known, new = folder.split("train").class_names, folder.split("ood_test").class_names
    both = sorted(set(known) & set(new))
    if both:
        raise UserError(
            f"the classes {', '.join(both[:3])} are in train/ and in val/",
            fix="an OOD class is never trained on: move its images to one side.",
        )
    return known + new


def join_support(
    joined: TrainingRows, cache: EmbeddingCache, folder: ImageFolder, support: Sequence[str]
) -> TrainingRows:
    """Return the training images with the support after them, labelled among ID then OOD classes."""
    train, ood = joined.rows, cache.split("ood_test")
    classes, records = joint_classes(folder), {image.key: image for image in folder.split("ood_test").images}
    at = np.array([ood.position[key] for key in support], dtype=np.int64)
    order = np.concatenate([joined.row_of, len(train) + at])
    captioned = train.caption_embeddings is not None and ood.caption_embeddings is not None
    rows = SplitRows(
        name="train and ood_support",
        keys=[train.keys[i] for i in joined.row_of] + list(support),
        labels=np.concatenate([train.labels[joined.row_of], ood.labels[at] + len(train.class_names)]),
        class_names=classes,
        embeddings=MappedRows([train.embeddings, ood.embeddings], order),
        captions=None,
        caption_embeddings=(
            MappedRows([train.caption_embeddings, ood.caption_embeddings], order) if captioned else None
        ),
    )
    return replace(
        joined,
        rows=rows,
        images=joined.images + tuple(records[key] for key in support),
        row_of=np.arange(len(order)),
        support=len(support),
    )
