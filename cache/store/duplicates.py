"""One picture under two keys where that spoils a result: in two splits, or under two classes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError, some_of
from cache.sources.key_hashes import hashes_of
from cache.sources.splits import SPLITS
from cache.store.journal import Journal, RowGroup
from cache.store.row_group import KeysFile

TRAIN, POOL = "train", "pool"


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """Two images of the same content, as ``SPLIT/KEY``."""

    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.one} is {self.other}"

    @property
    def of_pool_and_test(self) -> bool:
        """Whether one of them is an image of the pool, and the other a test's."""
        return self.one.startswith(f"{POOL}/")


def check_pool(cache: Path, journal: Journal) -> None:
    """Raise a UserError if an image of the pool is one of a test as well: it would be trained on."""
    pairs = [pair for pair in duplicates_of(cache, journal) if pair.of_pool_and_test]
    if pairs:
        raise UserError(
            f"{len(pairs):,} images of the pool are test images as well: {some_of([*map(str, pairs)])}",
            fix="take them out of the pool, then run the same command again: it embeds what is new.",
        )


@dataclass(frozen=True, kw_only=True, slots=True, order=True)
class _Image:
    """An image with what decides whether it spoils a result; ``classes`` is a number for its classes."""

    split: int
    key: str
    classes: int
    content: bytes

    def __str__(self) -> str:
        return f"{SPLITS[self.split]}/{self.key}"


def duplicates_of(cache: Path, journal: Journal) -> list[Duplicate]:
    """Return the images that a cache holds in two splits, or in one split under two classes, by content.

    An image of the pool may be one of train: that is no label more, and no test.
    The content is the SHA-256 of the file (of the pictures, for episodes). A test on an image that was
    trained on, or an OOD image among the training ones, measures something else than it says. UserError if
    the keys of a row group are damaged.
    """
    groups = journal.all_groups
    # Numbers alone, 24 bytes a row: only images of a content in two places are looked at one by one.
    numbers = [_numbers(cache, number, group) for number, group in enumerate(groups)]
    if not numbers:
        return []
    row, start, place = (np.concatenate(columns) for columns in zip(*numbers, strict=True))
    return _pairs(_images(cache, groups, row[_in_two_places(start, place)]))


def _numbers(cache: Path, number: int, group: RowGroup) -> tuple[NDArray[np.uint64], ...]:
    """Return of a group's rows with known content: (group and row, first bits of it, split and classes)."""
    keys = KeysFile(cache, group.keys)
    seen: NDArray[np.bool_] = np.asarray(keys.content.any(axis=1))  # rows that were imported may have none
    seen[list(group.removed)] = False
    rows = np.flatnonzero(seen).astype(np.uint64)
    start = np.ascontiguousarray(keys.content[seen, :8]).view(np.uint64)[:, 0]
    return np.uint64(number << 32) | rows, start, hashes_of([group.split]) ^ keys.label_codes()[seen]


def _in_two_places(start: NDArray[np.uint64], place: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return the rows whose content begins as that of a row in another place does."""
    rising = np.argsort(start, kind="stable")
    if not len(rising):
        return rising
    begins = np.flatnonzero(np.concatenate([[True], np.diff(start[rising]) != 0]))
    places = place[rising]
    apart = np.minimum.reduceat(places, begins) != np.maximum.reduceat(places, begins)
    return rising[np.repeat(apart, np.diff(begins, append=len(rising)))]


def _images(cache: Path, groups: Sequence[RowGroup], rows: NDArray[np.uint64]) -> Iterator[_Image]:
    group_of = rows >> np.uint64(32)
    for number in np.unique(group_of).tolist():
        keys = KeysFile(cache, groups[number].keys)
        classes, split = keys.label_codes(), SPLITS.index(groups[number].split)
        for row in (rows[group_of == number] & np.uint64(2**32 - 1)).tolist():
            yield _Image(
                split=split,
                key=keys.key(row),
                classes=int(classes[row]),
                content=keys.content[row].tobytes(),
            )


def _pairs(images: Iterable[_Image]) -> list[Duplicate]:
    first: dict[bytes, _Image] = {}
    of_pool: dict[bytes, _Image] = {}
    duplicates = []
    for image in sorted(images):
        if SPLITS[image.split] == POOL:
            of_pool.setdefault(image.content, image)
            continue
        before = first.setdefault(image.content, image)
        if (before.split, before.classes) != (image.split, image.classes):
            duplicates.append(Duplicate(one=str(before), other=str(image)))
        if SPLITS[image.split] != TRAIN and image.content in of_pool:
            duplicates.append(Duplicate(one=str(of_pool[image.content]), other=str(image)))
    return duplicates
