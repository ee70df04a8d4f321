"""Confusion matrices of the best setting and the baseline: which class is taken for which, over all seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.judge.outputs import Answers
from distill.report.differences import compared, measures
from distill.report.groups import Group
from distill.report.tasks import Part, split_label

# So many classes fit: those of most wrong answers, where there are more.
CLASSES = 60
# Names stand beside the rows of so many.
NAMED = 24
SIDE = 400


@dataclass(frozen=True, kw_only=True)
class Matrix:
    """Answers of a group to one split: ``counts`` [C, C], true class down and answered class across.

    ``left_out`` classes had fewer wrong answers than those that are shown.
    """

    title: str
    name: str
    names: tuple[str, ...]
    counts: NDArray[np.int64]
    images: NDArray[np.int64]
    left_out: int

    @property
    def cell(self) -> float:
        """The side of a cell on the drawing."""
        return SIDE / len(self.names)

    @property
    def named(self) -> bool:
        """Whether there is room for the names of the rows."""
        return len(self.names) <= NAMED

    @property
    def cells(self) -> list[tuple[float, float, float, bool]]:
        """Every cell that is not empty: place, share of its class's images, whether it is right."""
        return [
            (
                round(column * self.cell, 2),
                round(row * self.cell, 2),
                round(float(self.counts[row, column] / self.images[row]), 3),
                bool(row == column),
            )
            for row, column in np.argwhere(self.counts > 0).tolist()
        ]

    @property
    def data(self) -> dict[str, Any]:
        """What the script names cells by."""
        return {"names": self.names, "counts": self.counts.tolist(), "images": self.images.tolist()}


def confusion_matrices(part: Part) -> list[Matrix]:
    """Return a matrix a test split, OOD first, of the best setting and, if another, the baseline."""
    told = next((one for measure in measures(part) if (one := compared(part, measure)) is not None), None)
    shown = [told.best] if told is not None else []
    shown += [part.baseline] if part.baseline not in shown else []
    found = []
    for group in shown:
        splits = dict.fromkeys(name for run in group.runs if run.outputs for name in run.outputs.answers)
        for split in sorted(splits, key=lambda name: not name.startswith("ood")):
            answers = [
                r.outputs.answers[split] for r in group.runs if r.outputs and split in r.outputs.answers
            ]
            matrix = _matrix(group, split, answers)
            found += [matrix] if matrix is not None else []
    return found


def _matrix(group: Group, split: str, answers: Sequence[Answers]) -> Matrix | None:
    names = answers[0].class_names
    alike = [one for one in answers if one.class_names == names]  # another order would be other classes
    if len(names) < 2:
        return None
    counts = np.zeros((len(names), len(names)), dtype=np.int64)
    for one in alike:
        np.add.at(counts, (one.labels, one.predicted), 1)
    images, wrong = counts.sum(axis=1), counts.sum(axis=1) - counts.diagonal()
    there = np.flatnonzero(images)
    at = np.sort(there[np.argsort(-wrong[there], kind="stable")[:CLASSES]])
    if not len(at):
        return None
    return Matrix(
        title=f"{group.label}: {split_label(split)}",
        name=f"matrix-{group.number}-{''.join(c if c.isalnum() else '-' for c in split)}",
        names=tuple(names[i] for i in at),
        counts=counts[np.ix_(at, at)],
        images=images[at],
        left_out=len(there) - len(at),
    )
