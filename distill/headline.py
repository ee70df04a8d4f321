"""What a run is judged by first: its test splits, else the images that were set aside, else nothing.

A split of one class has no accuracy among its own classes: any answer is right. It is judged among all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cache.sources.splits import FOLDERS, TESTS

LABELS = {"id_val": "ID set aside", "id_test": "ID", "ood_test": "OOD"}
NOTHING_TO_JUDGE = (
    "nothing can be judged: there is no test split, and nothing was set aside; give the data "
    f"{' or '.join(FOLDERS[name] for name in TESTS)}, or train with --set data.id_val=0.1"
)


def headline(metrics: Mapping[str, Any], split: str) -> float | None:
    """Return what judges a split, in percent; None where nothing does.

    Mean average precision of episodes, macro accuracy of photos: among the split's own classes, of one class
    among all.
    """
    endings = ("average_precision", "accuracy", "all_accuracy")
    return next((metrics[f"{split}_{name}"] for name in endings if f"{split}_{name}" in metrics), None)


def headline_splits(runs: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return which splits are told of some runs' metrics: the tests that one was judged on, else id_val."""
    metrics = list(runs)
    for splits in (TESTS, ("id_val",)):
        judged = tuple(split for split in splits if any(headline(one, split) is not None for one in metrics))
        if judged:
            return judged
    return ()


def headline_label(runs: Iterable[Mapping[str, Any]], split: str) -> str:
    """Return how a split's :func:`headline` is called over some runs' metrics."""
    own = (f"{split}_average_precision", f"{split}_accuracy")
    return LABELS[split] + ("" if any(name in metrics for metrics in runs for name in own) else " among all")


def one_class_notes(classes: Mapping[str, int], *, among_all: bool) -> list[str]:
    """Return a line for every split of one class, of the number of ``classes`` of each.

    ``among_all`` says whether other classes competed.
    """
    told = "it is judged among all classes alone" if among_all else "there is no other, and nothing to judge"
    return [
        f"{split} has one class, among which any answer is right: {told}"
        for split, count in classes.items()
        if count == 1
    ]
