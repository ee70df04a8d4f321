"""How well a cache's teacher classifies its own rows by its own texts: the first thing to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cache.build.distinct_texts import alike_classes
from cache.reader import EmbeddingCache
from cache.sources.splits import POOL, TESTS
from cache.store.neighbours import nearest_texts
from cache.store.spec import IMPORTED
from cache.store.split_rows import SplitRows
from cache.store.text_banks import TextBank, image_hashes

# 65,536 rows x 768 x 4 bytes = 200 MB at most.
ROWS_AT_ONCE = 65_536


@dataclass(frozen=True, kw_only=True, slots=True)
class ZeroShot:
    """The teacher's macro accuracy, percent, on a split among its own classes, by one text bank.

    ``classes`` are those that have images, ``competing`` those of which one is right: the same, or of a split
    of one class, among which any answer is right, all of the data.
    """

    split: str
    bank: str
    accuracy: float
    images: int
    classes: int
    competing: int

    @property
    def chance(self) -> float:
        """The accuracy of guessing, percent."""
        return 100 / self.competing

    @property
    def near_chance(self) -> bool:
        """Whether it is hardly better than guessing.

        That is: within two standard errors, or twice chance, or, of few classes, a tenth of the way up.
        """
        share = 1 / self.competing
        error = 100 * math.sqrt(share * (1 - share) / self.images)
        little = min(self.chance, (100 - self.chance) / 10)
        return self.competing > 1 and self.accuracy < self.chance + max(little, 2 * error)


def zero_shot(cache: EmbeddingCache, bank_names: Sequence[str]) -> list[ZeroShot]:
    """Judge the teacher on every split whose images have one label, by those banks that know each class.

    Classes without images are left out, of the accuracy and of the number of classes. A pool has no labels,
    and data of one class alone nothing to be taken for.
    """
    banks = {name: cache.text_bank(name) for name in bank_names}
    every = tuple(sorted({name for split in cache.split_names for name in cache.class_names(split)}))
    splits = [cache.split(name) for name in cache.split_names if name != POOL]
    return [
        _judged(split, bank, every)
        for split in splits
        for bank in banks.values()
        if np.ndim(split.labels) == 1
        and len(every) > 1
        and (split.labels >= 0).any()
        and {*split.class_names} <= {*bank.class_folders}
    ]


def _judged(split: SplitRows, bank: TextBank, every: tuple[str, ...]) -> ZeroShot:
    own, known = split.class_names, {*bank.class_folders}
    among = own if len(own) > 1 else tuple(name for name in every if name in known)
    number = {name: i for i, name in enumerate(among)}
    labels = np.array([*(number[name] for name in own), -1])[split.labels]  # -1, no label, is the last
    if len(bank.made_of) and split.name in TESTS:
        hashes = image_hashes(split.name, split.keys, np.arange(len(split)))
        labels[np.isin(hashes, bank.made_of)] = -1
    nearest, _ = nearest_texts(split.embeddings, bank.class_texts(among), 1)
    labelled = labels[labels >= 0]
    right = labels[nearest[:, 0] == labels]
    images, hits = (np.bincount(of, minlength=len(among)) for of in (labelled, right))
    here = images > 0
    return ZeroShot(
        split=split.name,
        bank=bank.name,
        accuracy=float(100 * (hits[here] / images[here]).mean()),
        images=len(labelled),
        classes=int(here.sum()),
        competing=int(here.sum()) if among is own else len(among),
    )


def doubts(cache: EmbeddingCache, bank_names: Sequence[str], judged: Sequence[ZeroShot]) -> list[str]:
    """Return a line for each thing about a cache, and its banks that tell classes apart, to look at."""
    lines = []
    for name in bank_names:
        near = [f"{one.split} {one.accuracy:.1f}%" for one in judged if one.bank == name and one.near_chance]
        if near:
            lines.append(
                f"{name}: with these texts the teacher is near chance ({', '.join(near)}): check its "
                "weights, the class names, and that keys and rows belong together"
            )
    every = sorted({name for split in cache.split_names for name in cache.class_names(split)})
    for name in bank_names:
        lines += _ties(cache.text_bank(name), every)
    if cache.teacher_spec.preprocessing == IMPORTED:
        lines += [line for name in cache.split_names for line in _shared(cache.split(name))]
    return lines


def _ties(bank: TextBank, class_names: Sequence[str]) -> list[str]:
    pairs = alike_classes(bank, class_names)
    if not pairs:
        return []
    tied = {name for pair in pairs for name in pair}
    return [
        f"{bank.name}: the teacher gives {len(tied)} of {len(class_names)} classes the same row as another "
        f"({pairs[0][0]!r} and {pairs[0][1]!r}): it does not know their words, and cannot tell them apart"
    ]


def _shared(split: SplitRows) -> list[str]:
    """Say how many rows that were made elsewhere are equal to another's."""
    # Numbers, not the rows' bytes: nothing of size N is kept but 8 bytes a row.
    starts = range(0, len(split), ROWS_AT_ONCE)
    blocks = (split.embeddings[start : start + ROWS_AT_ONCE] for start in starts)
    hashes = np.fromiter((hash(row.tobytes()) for rows in blocks for row in rows), np.int64, len(split))
    _, counts = np.unique(hashes, return_counts=True)
    shared = int(counts[counts > 1].sum())
    return [f"{split.name}: {shared:,} of {len(split):,} rows are the same as another's"] if shared else []
