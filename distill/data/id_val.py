"""Which training images are set aside to choose on: by the hash of their keys, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Labels = NDArray[np.int64]
"""Numbers of classes, int64 [N], -1 for an image without one; [N, C] where it can have several."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetAside:
    """The images whose keys' hashes fall into a share of 1, but those of the hashes ``kept``."""

    share: float
    kept: tuple[int, ...] = ()

    def of(self, hashes: Hashes) -> NDArray[np.bool_]:
        """Say of the images of these keys' hashes [N] whether each is set aside."""
        aside: NDArray[np.bool_] = shares_of(hashes) < self.share
        if self.kept and self.share:
            aside &= ~np.isin(hashes, np.array(self.kept, dtype=np.uint64))
        return aside

    @classmethod
    def drawn(
        cls, share: float, classes: int, groups: Callable[[], Iterable[tuple[Hashes, Labels]]]
    ) -> SetAside:
        """Return what is set aside of images that come in groups; every class keeps one at least.

        Where images can have several labels no class is emptied by one image.
        """
        plain = cls(share=share)
        if not share:
            return plain
        there, left = np.zeros(classes, dtype=np.int64), np.zeros(classes, dtype=np.int64)
        for hashes, labels in groups():
            if labels.ndim > 1:
                return plain
            has = labels >= 0
            there += np.bincount(labels[has], minlength=classes)
            left += np.bincount(labels[has & ~plain.of(hashes)], minlength=classes)
        emptied = (there > 0) & (left == 0)
        if not emptied.any():
            return plain
        # Of each emptied class the image whose hash falls furthest from the share, and of equals the largest.
        best, kept = np.full(classes, -1.0), np.zeros(classes, dtype=np.uint64)
        for hashes, labels in groups():
            rows = np.flatnonzero((labels >= 0) & emptied[np.maximum(labels, 0)])
            drawn, label, number = shares_of(hashes[rows]), labels[rows], hashes[rows]
            rows = np.lexsort((number, drawn, label))
            last = rows[np.append(np.flatnonzero(np.diff(label[rows])), len(rows) - 1)] if len(rows) else rows
            label, drawn, number = label[last], drawn[last], number[last]
            better = (drawn > best[label]) | ((drawn == best[label]) & (number > kept[label]))
            best[label[better]], kept[label[better]] = drawn[better], number[better]
        return cls(share=share, kept=tuple(sorted(kept[emptied].tolist())))


def shares_of(hashes: Hashes) -> NDArray[np.float64]:
    """Return a number from 0 to 1 for the hash of every key, [N], in no relation to the hashes' order.

    (By which rows are grouped: a share of it would be a few groups. This is the end of splitmix64.)
    """
    mixed = hashes.copy()
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    mixed ^= mixed >> np.uint64(31)
    return mixed / 2.0**64
