"""Images of train and of a pool, joined to the rows of a cache by key; what is set aside of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Sample, Source
from cache.sources.splits import POOL
from cache.store.split_rows import SplitRows
from distill.config import RunConfig
from distill.config_data import DataConfig
from distill.config_fields import require
from distill.data.class_val import classes_aside
from distill.data.id_val import SetAside
from distill.data.identity_reader import IdentityReader
from distill.data.joined_rows import JoinedRows, Part
from distill.data.pool import (
    PoolSource,
    check_learnable_alone,
    check_pool_apart,
    check_share_of_none,
    classes_of_texts,
    learnt_splits,
    pool_sources,
    takes_pool,
)
from distill.data.pool_val import as_teacher_says, pool_aside

ANOTHER_FOLDER = "give the data folder that the cache was made from."
Taken = tuple[str, tuple[Sample, ...]]
"""Some images of a split."""


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """The training images that have a teacher row, by key, and that row's number in the cache.

    First come the ``labelled`` ones, then those of the ``pool``, of which there are so many by split, last
    the ``support``, few-shot images of OOD classes; ``taken`` are all by the split that they are of.
    ``id_val`` and ``class_val`` are images set aside to choose on, of the classes that are learnt and of
    ``classes_aside``, ``pool_val`` of a pool alone, whose labels are the teacher's answers. ``left_out``
    counts those without a row, ``unused`` those without a label that are not trained on. ``pool_sources`` and
    ``test_images`` are those of :class:`distill.data.pool.Pool`.
    """

    rows: SplitRows | JoinedRows
    taken: tuple[Taken, ...]
    row_of: NDArray[np.int64]
    labelled: int
    id_val: tuple[Sample, ...] = ()
    class_val: tuple[Sample, ...] = ()
    pool_val: tuple[Sample, ...] = ()
    classes_aside: tuple[str, ...] = ()
    left_out: int = 0
    unused: int = 0
    support: int = 0
    pool: dict[str, int] = field(default_factory=dict)
    pool_sources: tuple[PoolSource, ...] = ()
    test_images: int | None = 0

    @cached_property
    def images(self) -> tuple[Sample, ...]:
        """The images."""
        if len(self.taken) == 1:
            return self.taken[0][1]
        return tuple(image for _, images in self.taken for image in images)

    @property
    def labels(self) -> NDArray[np.int64]:
        """The numbers of the images' classes, as :attr:`JoinedRows.labels`."""
        labels: NDArray[np.int64] = self.rows.labels[self.row_of]
        return labels

    @property
    def parts(self) -> tuple[Part, ...]:
        """The images' rows by the split that they are of."""
        return self.rows.parts if isinstance(self.rows, JoinedRows) else ((self.rows, self.row_of),)

    def of(self, cache: EmbeddingCache) -> TrainingRows:
        """Return the same with the rows of another teacher."""
        rows = self.rows
        own = rows.of(cache) if isinstance(rows, JoinedRows) else cache.split(rows.name)
        return replace(self, rows=own)


def join_images(identities: IdentityReader, config: RunConfig) -> TrainingRows:
    """Join the images that a run learns from to a cache's rows by key, labelled ones and the pool's.

    Raises
    ------
    CacheMismatch
        If the classes differ, or no image has a row.
    UserError
        If a pool alone cannot teach what the config asks for, or an image of it is a test image.
    """
    cache, folder = identities.cache, identities.folder
    names, has_pool = learnt_splits(config, cache, [*folder.splits]), POOL in folder.splits
    if "train" not in folder.splits and has_pool:
        check_learnable_alone(config, cache)
        joined = _pool_alone(identities, config)
    else:
        require(
            not config.data.pool_val,
            f"data.pool_val is {config.data.pool_val:g}, and {cache.path} has other images than a pool",
            "set data.pool_val=0, and data.id_val=0.1 to set labelled images aside.",
        )
        joined = join_training_rows(identities, config.data, unlabelled=takes_pool(config))
    if POOL in names and joined.taken[0][0] != POOL:
        joined = _with_pool(joined, identities)
    elif has_pool and POOL not in names and not cache.holds_episodes:
        joined = replace(joined, unused=joined.unused + len(folder.split(POOL)))
    if not joined.labelled and joined.rows.labels.ndim == 1:
        check_learnable_alone(config, cache)
        texts = classes_of_texts(cache.teacher_cache(config.teachers[0]), config.text)
        joined = _relabelled(joined, texts, joined.labels)
    if not joined.pool:
        check_share_of_none(config, cache, unused=joined.unused)
        return joined
    sources = pool_sources(joined.pool, folder.given)
    apart = check_pool_apart(cache, [*joined.pool])
    return replace(joined, pool_sources=sources, test_images=apart)


def join_training_rows(
    identities: IdentityReader, data: DataConfig, *, unlabelled: bool = True
) -> TrainingRows:
    """Join a folder's images of train to a cache's rows by key.

    What ``data`` sets aside is chosen by the hash of keys and of names of classes, so that it is the same on
    every machine and whatever is added later; each class that is learnt keeps at least one image. Images
    without a label are left out unless ``unlabelled``. CacheMismatch if the class folders differ, or no image
    has a row.
    """
    cache, folder = identities.cache, identities.folder
    split, rows = folder.split("train"), cache.split("train")
    check_classes(identities, split, rows)
    images, row_of = split.all(), identities.joined("train").row_of
    has_row = row_of >= 0
    if not has_row.any():
        raise _no_rows(identities, "train", images, rows)
    labels = np.asarray(rows.labels)[row_of]
    has_label = labels >= 0 if labels.ndim == 1 else np.ones_like(has_row)
    names = classes_aside(rows.class_names, data.class_val)
    of_others = has_row & has_label & _is_of(labels, [rows.class_names.index(name) for name in names])
    labelled = has_row & has_label & ~of_others
    aside = np.zeros_like(has_row)
    if data.id_val:
        hashes = hashes_of(image.key for image in images)
        with_row = [(hashes[labelled], labels[labelled])]
        drawn = SetAside.drawn(data.id_val, len(rows.class_names), lambda: with_row)
        aside = labelled & drawn.of(hashes)
    chosen, without = labelled & ~aside, has_row & ~has_label
    more = without if unlabelled else np.zeros_like(without)
    joined = TrainingRows(
        rows=rows,
        taken=tuple(("train", _taken(images, own)) for own in (chosen, more) if own is chosen or own.any()),
        row_of=np.concatenate([row_of[chosen], row_of[more]]),
        labelled=int(chosen.sum()),
        id_val=_taken(images, aside),
        class_val=_taken(images, of_others),
        classes_aside=names,
        left_out=int((~has_row).sum()),
        unused=int((without & ~more).sum()),
        pool={"train": int(more.sum())} if more.any() else {},
    )
    if not names:
        return joined
    learnt = tuple(name for name in rows.class_names if name not in set(names))
    number = {name: i for i, name in enumerate(learnt)}
    of_learnt = np.array([*(number.get(name, -1) for name in rows.class_names), -1])
    return _relabelled(joined, learnt, of_learnt[joined.labels])


def check_classes(identities: IdentityReader, split: Source, rows: SplitRows) -> None:
    """Make sure that a split of the data has the classes of its rows; CacheMismatch else."""
    if split.classes == rows.class_names:
        return
    only_here = sorted(set(split.classes) - set(rows.class_names))
    only_there = sorted(set(rows.class_names) - set(split.classes))
    raise CacheMismatch(
        f"the training classes of {identities.folder.path} and of {identities.cache.path} differ "
        f"(only in the data: {only_here[:3] or 'none'}; only in the cache: {only_there[:3] or 'none'})",
        fix=ANOTHER_FOLDER,
    )


def _pool_alone(identities: IdentityReader, config: RunConfig) -> TrainingRows:
    images, at, left_out = _pool_rows(identities)
    aside = pool_aside(images, config.data.pool_val)
    learnt = at[~aside]
    return TrainingRows(
        rows=identities.cache.split(POOL),
        taken=((POOL, _taken(images, ~aside)),),
        row_of=learnt,
        labelled=0,
        pool_val=as_teacher_says(identities.cache, config, _taken(images, aside), at[aside]),
        left_out=left_out,
        pool={POOL: len(learnt)},
    )


def pool_val_of(identities: IdentityReader, config: RunConfig) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Return the images of a pool alone of which a run learns nothing, and the classes that they can have."""
    if not config.data.pool_val:
        return (), ()
    joined = _pool_alone(identities, config)
    teacher = identities.cache.teacher_cache(config.teachers[0])
    return joined.pool_val, classes_of_texts(teacher, config.text)


def _with_pool(joined: TrainingRows, identities: IdentityReader) -> TrainingRows:
    images, at, left_out = _pool_rows(identities)
    rows = JoinedRows(
        [*joined.parts, (identities.cache.split(POOL), at)],
        joined.rows.class_names,
        np.concatenate([joined.labels, np.full(len(at), -1)]),
    )
    return replace(
        joined,
        rows=rows,
        taken=(*joined.taken, (POOL, images)),
        row_of=np.arange(len(joined.row_of) + len(at)),
        left_out=joined.left_out + left_out,
        pool={**joined.pool, POOL: len(at)},
    )


def _pool_rows(identities: IdentityReader) -> tuple[tuple[Sample, ...], NDArray[np.int64], int]:
    """Return the images of the pool that have a row, their rows, and how many have none."""
    images, row_of = identities.folder.split(POOL).all(), identities.joined(POOL).row_of
    has_row = row_of >= 0
    if not has_row.any():
        raise _no_rows(identities, POOL, images, identities.cache.split(POOL))
    return _taken(images, has_row), row_of[has_row], int((~has_row).sum())


def _no_rows(
    identities: IdentityReader, name: str, images: Sequence[Sample], rows: SplitRows
) -> CacheMismatch:
    what = {"train": "training images"}.get(name, f"images of the {name}")
    like = f"images like {images[0].key!r}, " if images else ""
    return CacheMismatch(
        f"none of the {len(images)} {what} of {identities.folder.path} has a row in {identities.cache.path} "
        f"({like}rows like {rows.keys[0]!r})",
        fix=ANOTHER_FOLDER,
    )


def _relabelled(
    joined: TrainingRows, class_names: tuple[str, ...], labels: NDArray[np.int64]
) -> TrainingRows:
    """Return the images with other classes, of which ``labels`` are the numbers."""
    rows = JoinedRows(joined.parts, class_names, labels)
    return replace(joined, rows=rows, row_of=np.arange(len(joined.row_of)))


def _is_of(labels: NDArray[np.int64], numbers: Sequence[int]) -> NDArray[np.bool_]:
    if not numbers:
        return np.zeros(len(labels), dtype=bool)
    return np.isin(labels, numbers)


def _taken(images: tuple[Sample, ...], chosen: NDArray[np.bool_]) -> tuple[Sample, ...]:
    return images if chosen.all() else tuple(images[i] for i in np.flatnonzero(chosen).tolist())
