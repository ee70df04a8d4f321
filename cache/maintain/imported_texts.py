"""Whether the texts of an import are those of its classes, as its rows tell: before anything is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.maintain.imported_rows import ImportedSplit
from cache.runtime.errors import UserError
from cache.sources.splits import POOL
from cache.store.neighbours import nearest_texts, unit_rows

# Rows that are looked at: so many a class, and in all 65,536 x 768 x 4 bytes = 200 MB at most.
ROWS_OF_CLASS, ROWS_IN_ALL = 32, 65_536
# Few texts of any words may fit few classes better in another order.
CLASSES = 10
# Of a bank in another order the rows find the texts of most classes, and ten times as many as it says.
FOUND, TIMES = 50, 10


@dataclass(frozen=True, kw_only=True, slots=True)
class _Rows:
    """Unit rows [N, D] of some images of every class, and the class of each; every second is ``judged``."""

    rows: NDArray[np.float32]
    class_of: NDArray[np.int64]
    judged: NDArray[np.bool_]

    def accuracy(self, texts: NDArray[np.float32], text_of_class: NDArray[np.int64]) -> float:
        """Return for how many judged rows, in percent, the nearest text is that of their class."""
        nearest, _ = nearest_texts(self.rows[self.judged], texts, 1)
        return float(100 * (nearest[:, 0] == text_of_class[self.class_of[self.judged]]).mean())

    def means(self, classes: int) -> NDArray[np.float32]:
        """Return the mean of the rows of each class that are not judged, [C, D]."""
        sums = np.zeros((classes, self.rows.shape[1]), dtype=np.float32)
        np.add.at(sums, self.class_of[~self.judged], self.rows[~self.judged])
        return unit_rows(sums)


def check_texts(given: Imported, splits: Sequence[ImportedSplit]) -> list[str]:
    """Return a line on each bank whose texts are near chance although the rows tell the classes apart.

    Raises
    ------
    UserError
        If the rows find the texts of most classes among those of other ones: names and rows of the bank are
        not in one order.
    """
    notes = []
    for bank in given.texts:
        known = {name: i for i, name in enumerate(dict.fromkeys(bank.classes))}
        sample = _sample(given, splits, known)
        if sample is not None:
            notes += _doubts(bank, *sample)
    return notes


def _sample(
    given: Imported, splits: Sequence[ImportedSplit], known: dict[str, int]
) -> tuple[list[str], _Rows] | None:
    """Return the classes that have a text and two rows or more, and some of their rows."""
    at: dict[str, list[int]] = {}
    for split in splits if not any(len(names) > 1 for one in splits for names in one.labels) else ():
        for row, names in zip(split.at.tolist(), split.labels, strict=True):
            if split.split != POOL and names and names[0] in known:
                own = at.setdefault(names[0], [])
                if len(own) < ROWS_OF_CLASS:
                    own.append(row)
    most = max(2, ROWS_IN_ALL // max(1, len(at)))
    classes = sorted(name for name, rows in at.items() if len(rows) > 1)
    if len(classes) < 2:
        return None
    taken = [at[name][:most] for name in classes]
    rows = given.embeddings[np.concatenate([np.array(own, dtype=np.int64) for own in taken])]
    return classes, _Rows(
        rows=unit_rows(np.asarray(rows, dtype=np.float32)),
        class_of=np.repeat(np.arange(len(classes)), [len(own) for own in taken]),
        judged=np.concatenate([np.arange(len(own)) % 2 == 1 for own in taken]),
    )


def _doubts(bank: ImportedTexts, classes: Sequence[str], sample: _Rows) -> list[str]:
    texts = unit_rows(np.asarray(bank.bank().class_texts(classes), dtype=np.float32))
    own = np.arange(len(classes))
    as_given, chance = sample.accuracy(texts, own), 100 / len(classes)
    if as_given > max(100 / TIMES, min(2 * chance, (100 + chance) / 2)):
        return []
    means = sample.means(len(classes))
    nearest, _ = nearest_texts(means, texts, 1)
    # A text that is nearest to several classes is that of none.
    once = np.bincount(nearest[:, 0], minlength=len(classes))[nearest[:, 0]] == 1
    found = sample.accuracy(texts, np.where(once, nearest[:, 0], -1))
    if len(classes) >= CLASSES and found >= max(FOUND, TIMES * as_given):
        first = int(np.flatnonzero(once & (nearest[:, 0] != own))[0])
        raise UserError(
            f"the text bank {bank.name!r} is in another order than its classes: its texts are right for "
            f"{as_given:.1f}% of the images, and for {found:.1f}% if each class has the one that its images "
            f"are nearest to (of {classes[first]!r}: that of {classes[int(nearest[first, 0])]!r})",
            fix="give the names in the order of the rows.",
        )
    by_mean = sample.accuracy(means, own)
    if by_mean < 2 * as_given or by_mean < FOUND:
        return []
    return [
        f"{bank.name}: its texts are right for {as_given:.1f}% of the images (chance {chance:.1f}%), "
        f"although the rows tell the classes apart ({by_mean:.1f}% by each class's mean row): check that the "
        "names are in the order of the texts, and that texts and images are of one teacher"
    ]
