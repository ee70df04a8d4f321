"""All photos that are given, each once; which of them are learnt from, and which judge."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError, some_of
from cache.sources.key_hashes import hashes_of
from cache.sources.splits import HELD_OUT, POOL, TESTS
from distill.adapt.duplicates import copies
from distill.adapt.labels import Labels, Photo
from distill.adapt.names import Names
from distill.data.id_val import SetAside

TRAIN, ID_TEST, OOD_TEST = "train", *TESTS
# With fewer photos there is nothing to learn, with fewer labelled ones nothing to judge by.
LEAST, LEAST_LABELLED = 10, 20
# Of labelled photos where nothing says which are a test.
TEST_SHARE = 0.2
# Of photos of one content the test's stays, then the one with a label.
_RANKS = {ID_TEST: 0, OOD_TEST: 0, HELD_OUT: 0, TRAIN: 1, "": 1, POOL: 2}


@dataclass(frozen=True, kw_only=True)
class Photos:
    """Photos by split, each of which has one; ``notes`` are lines on what was found and left out."""

    photos: tuple[Photo, ...]
    notes: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """How many there are of each split that has some."""
        counts = Counter(photo.split for photo in self.photos)
        return {split: counts[split] for split in (TRAIN, POOL, ID_TEST, OOD_TEST) if counts[split]}

    @property
    def has_labels(self) -> bool:
        """Whether some that are learnt from have a label."""
        return TRAIN in self.counts


def look(sources: Sequence[str], names: Names) -> Photos:
    """Look at all that is given; UserError where these are too few photos to learn from."""
    labels = Labels(names=names)
    photos = _each_once(sources, labels)
    if len(photos) < LEAST:
        raise UserError(
            f"{some_of([*sources])} {'has' if len(sources) == 1 else 'have'} {_count(len(photos), 'photo')}"
            + "".join(f"; {note}" for note in labels.notes()[:2]),
            fix=f"give at least {LEAST}, some hundred better: those without a label help, too.",
        )
    notes = labels.notes()
    photos = _without_copies(photos, notes)
    photos = _with_splits(photos, notes)
    learnt = sum(photo.split in (TRAIN, POOL) for photo in photos)
    if learnt < LEAST:
        raise UserError(
            f"of {_count(len(photos), 'photo')} {learnt} are to be learnt from, the others are tests",
            fix=f"give at least {LEAST} more, with or without labels.",
        )
    return Photos(photos=tuple(photos), notes=tuple(notes))


def _each_once(sources: Sequence[str], labels: Labels) -> list[Photo]:
    """Return the photos of all sources; of one that several name what says more of it."""
    if len(sources) == 1:
        return [*labels.photos_of(sources[0])]
    by_place: dict[str, Photo] = {}
    keys: Counter[str] = Counter()
    for number, source in enumerate(sources):
        before = os.path.basename(source.rstrip("/")) if os.path.isdir(source) and number else ""
        for photo in labels.photos_of(source, before=before):
            other = by_place.get(photo.place)
            if other is None:
                keys[photo.key] += 1
                key = photo.key if keys[photo.key] == 1 else f"{number}/{photo.key}"
                by_place[photo.place] = photo._replace(key=key)
            else:
                by_place[photo.place] = other._replace(
                    name=photo.name or other.name, split=photo.split or other.split
                )
    return [*by_place.values()]


def _without_copies(photos: list[Photo], notes: list[str]) -> list[Photo]:
    ranks = [_RANKS[photo.split] + (not photo.name) for photo in photos]
    gone = dict(copies([photo.place for photo in photos], ranks))
    if not gone:
        return photos
    pairs = [f"{photos[i].key} of {photos[other].key}" for i, other in gone.items()]
    notes.append(f"left out: {_count(len(gone), 'photo')} that another is a copy of: {some_of(pairs)}")
    others = [i for i, other in gone.items() if photos[i].name and photos[i].name != photos[other].name]
    if others:
        named = [f"{photos[i].key} ({photos[gone[i]].name})" for i in others]
        notes.append(f"of one content and two names, of which one was taken: {some_of(named)}")
    return [photo for i, photo in enumerate(photos) if i not in gone]


def _with_splits(photos: list[Photo], notes: list[str]) -> list[Photo]:
    """Return photos with the split of each: train or pool, or a test by whether its name is learnt."""
    trained = Counter(photo.name for photo in photos if photo.name and photo.split in ("", TRAIN))
    too_few = sum(trained.values()) < LEAST_LABELLED
    if too_few and trained:
        notes.append(
            f"{_count(sum(trained.values()), 'labelled photo')} are too few to judge by (at least "
            f"{LEAST_LABELLED}): what they are is left out, and they are learnt from as the others are"
        )
        trained.clear()
    placed = [photo._replace(split=_split_of(photo, trained), name=photo.name) for photo in photos]
    dropped = sum(not photo.split for photo in placed)
    if dropped:
        notes.append(f"left out: {_count(dropped, 'test photo')} without a label")
    placed = [p._replace(name="") if p.split == POOL else p for p in placed if p.split]
    if trained and not any(photo.split == ID_TEST for photo in placed):
        placed = _with_test(placed, notes)
    return placed


def _split_of(photo: Photo, trained: Counter[str]) -> str:
    if photo.split in (ID_TEST, OOD_TEST, HELD_OUT):
        return (ID_TEST if photo.name in trained else OOD_TEST) if photo.name else ""
    return TRAIN if photo.name in trained else POOL


def _with_test(photos: list[Photo], notes: list[str]) -> list[Photo]:
    """Set labelled photos aside as the ID test, by the hash of their keys; each name keeps one."""
    labelled = [i for i, photo in enumerate(photos) if photo.split == TRAIN]
    if len(labelled) < 2 * LEAST_LABELLED:
        notes.append(
            f"{len(labelled)} labelled photos are too few for a test of their own (at least "
            f"{2 * LEAST_LABELLED}): the model is judged by those that are set aside to choose on"
        )
        return photos
    # Not of the keys alone: what a run sets aside to choose on goes by those, and would all be taken here.
    hashes = hashes_of(f"{ID_TEST}/{photos[i].key}" for i in labelled)
    names, numbers = np.unique([photos[i].name for i in labelled], return_inverse=True)
    aside: NDArray[np.bool_] = SetAside.drawn(TEST_SHARE, len(names), lambda: [(hashes, numbers)]).of(hashes)
    test = {labelled[i] for i in np.flatnonzero(aside).tolist()}
    notes.append(f"of {len(labelled):,} labelled photos {len(test):,} are set aside as a test")
    return [photo._replace(split=ID_TEST) if i in test else photo for i, photo in enumerate(photos)]


def _count(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
