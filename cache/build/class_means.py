"""Class means in place of texts: a bank of a teacher's own rows (``cache add-texts --from-images``).

The mean of a class's unit rows classifies images as its text would (nearest class mean). Of classes that only
test images show, a few of those are taken, by the hash of their key, and the bank keeps which: they are not
judged with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.reader import EmbeddingCache
from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError, WrongOption, some_of
from cache.sources.names import is_plain_name
from cache.sources.splits import LABELLED, MAIN_TEACHER, split_name
from cache.store.manifest_lines import ListedBank
from cache.store.neighbours import unit_rows
from cache.store.split_rows import SplitRows
from cache.store.text_banks import TextBank, add_bank, image_hashes, make_bank

ROWS_AT_ONCE = 16_384
LEARNT = "train"


@dataclass(frozen=True, kw_only=True)
class MeanOptions:
    """What ``distill cache add-texts --from-images`` can be told.

    ``split`` names the one whose images are taken, '' all; ``shots`` is how many images of a class that only
    test images show are taken, of fewer than twice as many half; the rest as
    :class:`cache.build.text_options.TextOptions`.
    """

    bank: str
    split: str = ""
    shots: int = 16
    teacher: str = MAIN_TEACHER
    replaces: bool = False

    def __post_init__(self) -> None:
        if not is_plain_name(self.bank):
            raise WrongOption(
                f"--bank {self.bank!r:.60} cannot name a file", fix="use letters, digits, '.', '_' and '-'."
            )


@dataclass(frozen=True, kw_only=True)
class _Means:
    """Unit rows [C, D] of ``names``, of so many ``images`` each; ``hashes`` of those of a test."""

    names: list[str]
    rows: NDArray[np.float32]
    images: list[int]
    hashes: NDArray[np.uint64]


def add_class_means(path: Path, options: MeanOptions) -> tuple[ListedBank, list[str]]:
    """Add the means of labelled images' rows to a cache as a bank; return its line, and what is said of it.

    Raises
    ------
    UserError
        If the cache is of episodes, has no labelled images, or has another bank of that name.
    """
    cache = EmbeddingCache.open(path).teacher_cache(options.teacher)
    if cache.holds_episodes:
        raise UserError(
            f"{path} is of episodes, whose images have several labels", fix="give --text-file or --template."
        )
    means = _means(cache, options)
    texts = [
        f"mean of {count:,} images of {name}" for name, count in zip(means.names, means.images, strict=True)
    ]
    source = f"means of {sum(means.images):,} labelled images"

    def make() -> tuple[TextBank, dict[str, Any]]:
        bank = make_bank(options.bank, texts, means.names, means.rows)
        return replace(bank, made_of=means.hashes), {"source": source}

    named = [texts, sha256(means.rows.tobytes()).hexdigest(), means.hashes.tolist()]
    listed = add_bank(
        path, options.bank, make, made_from=digest(named), replaces=options.replaces, teacher=options.teacher
    )
    return listed, _remarks(cache, options, means)


def _means(cache: EmbeddingCache, options: MeanOptions) -> _Means:
    """Return the mean of every class that has labelled images: of train's own all, of others' a few."""
    wanted = [split_name(options.split)] if options.split else [*LABELLED]
    if options.split and wanted[0] not in LABELLED:
        raise WrongOption(f"--from-images {options.split}: its images have no label", fix="leave it out.")
    names: list[str] = []
    rows: list[NDArray[np.float32]] = []
    images: list[int] = []
    hashes = np.empty(0, dtype=np.uint64)
    for split in (cache.split(name) for name in wanted if name in cache.split_names):
        labels, done = (
            np.array(split.labels),
            [split.class_names.index(n) for n in names if n in split.class_names],
        )
        labels[np.isin(labels, done)] = -1
        if split.name != LEARNT:
            labels = _few(labels, options.shots)
            hashes = np.concatenate(
                [hashes, image_hashes(split.name, split.keys, np.flatnonzero(labels >= 0))]
            )
        counts = np.bincount(labels[labels >= 0], minlength=len(split.class_names))
        sums = _sums(split, labels)
        for label in np.flatnonzero(counts).tolist():
            names.append(split.class_names[label])
            rows.append(unit_rows(sums[label : label + 1])[0])
            images.append(int(counts[label]))
    if not names:
        where = f" in {wanted[0]}" if options.split else ""
        raise UserError(
            f"{cache.path} has no labelled images{where}, of which class means are made",
            fix="add some (train/CLASS/FILE) and run cache-features again, or give --text-file.",
        )
    return _Means(names=names, rows=np.stack(rows), images=images, hashes=np.sort(hashes))


def _few(labels: NDArray[np.int64], shots: int) -> NDArray[np.int64]:
    """Return the labels of the first ``shots`` images of a class, of fewer than twice as many half; else -1.

    The first are those of the least hashes of their keys, as rows lie.
    """
    few = np.full_like(labels, -1)
    for label in np.unique(labels[labels >= 0]):
        at = np.flatnonzero(labels == label)
        few[at[: max(1, min(shots, len(at) // 2))]] = label
    return few


def _sums(split: SplitRows, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the sum of the unit rows of each class [C, D]."""
    sums = np.zeros((len(split.class_names), split.embeddings.shape[1]))
    at = np.flatnonzero(labels >= 0)
    for block in (at[start : start + ROWS_AT_ONCE] for start in range(0, len(at), ROWS_AT_ONCE)):
        np.add.at(sums, labels[block], unit_rows(split.embeddings[block]))
    return sums


def _remarks(cache: EmbeddingCache, options: MeanOptions, means: _Means) -> list[str]:
    lines = [
        f"{len(means.names):,} classes have a mean, of {min(means.images):,} to {max(means.images):,} images"
    ]
    every = sorted({name for split in cache.manifest.splits.values() for name in split})
    if without := [name for name in every if name not in set(means.names)]:
        lines.append(f"{len(without):,} classes have none: {some_of(without)}")
    if len(means.hashes):
        lines.append(
            f"{len(means.hashes):,} test images went into it (of a class that train lacks {options.shots} at "
            "most), and are not judged by it"
        )
    if LEARNT in cache.split_names:
        lines.append("train's classes are means of train's own rows: telling those apart is no test")
    return lines
