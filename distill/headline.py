"""What a run is judged by first: its test splits, else the images that were set aside, else nothing.

Among one class any answer is right: an accuracy of 100% that says nothing. What is told of a split of one
class is its accuracy among all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from cache.sources.splits import FOLDERS, TESTS

# Parts of train, and of a pool alone, that are not trained on, to choose on.
SET_ASIDE = ("id_val", "class_val", "pool_val")
# Of the pool there is nothing to be right by but the teacher.
POOL_VAL = (
    "pool_val are images without a label that nothing was learnt from: what is told of them as accuracy is "
    "how often the student answers as its teacher, right or wrong; how often either is right was not measured"
)
LABELS = {
    "id_val": "ID set aside",
    "class_val": "classes set aside",
    "pool_val": "teacher's answers, pool set aside",
    "id_test": "ID",
    "ood_test": "OOD",
}
# How the metric ends that judges where there are no texts to classify by.
COSINE = "cosine"
# Points of accuracy: less is what another seed does.
CLEARLY = 1.0
NOTHING_TO_JUDGE = (
    "nothing can be judged: there is no test split, and nothing was set aside; give the data "
    f"{' or '.join(FOLDERS[name] for name in TESTS)}, or train with --set data.id_val=0.1"
)


def headline(metrics: Mapping[str, Any], split: str) -> float | None:
    """Return what judges a split; None where nothing does.

    In percent mean average precision of episodes, macro accuracy of photos: among the split's own classes, of
    one class among all; of a teacher without texts the mean cosine with its rows, -1 to 1.
    """
    own, among_all = ("average_precision", "accuracy"), ("all_accuracy",)
    first, then = (among_all, own) if is_of_one_class(metrics, split) else (own, among_all)
    endings = (*first, *then, COSINE)
    return next((metrics[f"{split}_{name}"] for name in endings if f"{split}_{name}" in metrics), None)


def is_by_cosine(metrics: Mapping[str, Any], split: str) -> bool:
    """Say whether a split's :func:`headline` is a cosine, because there are no texts to classify by."""
    return f"{split}_{COSINE}" in metrics and headline(metrics, split) == metrics[f"{split}_{COSINE}"]


def headline_words(metrics: Mapping[str, Any], split: str) -> str:
    """Return a split's :func:`headline` as a person writes it; '' of none."""
    value = headline(metrics, split)
    if value is None:
        return ""
    return f"{value:.3f}" if is_by_cosine(metrics, split) else f"{value:.1f}%"


def is_of_one_class(metrics: Mapping[str, Any], split: str) -> bool:
    """Say whether the photos of a split that was judged are of one class: that has no calibration error."""
    return f"{split}_accuracy" in metrics and f"{split}_loss" in metrics and f"{split}_ece" not in metrics


def headline_splits(runs: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return which splits are told of some runs' metrics: tests that one has, else what was set aside."""
    metrics = list(runs)
    for splits in (TESTS, SET_ASIDE):
        judged = tuple(split for split in splits if any(headline(one, split) is not None for one in metrics))
        if judged:
            return judged
    return ()


def headline_label(runs: Iterable[Mapping[str, Any]], split: str) -> str:
    """Return how a split's :func:`headline` is called over some runs' metrics."""
    judged = [metrics for metrics in runs if headline(metrics, split) is not None]
    if judged and all(is_by_cosine(metrics, split) for metrics in judged):
        return f"{LABELS[split]}, {COSINE}"
    among = judged and all(is_of_one_class(m, split) and f"{split}_all_accuracy" in m for m in judged)
    return LABELS[split] + (" among all" if among else "")


def below_closed_form(summary: Mapping[str, Any]) -> str:
    """Return one line where a trained student is worse than the head by ridge that it has; else ''.

    It goes by ID images alone, by those set aside where there are any: the OOD test decides nothing. Of few
    images a difference says little: it must be more than its standard error.
    """
    of_ridge = summary.get("closed_form", {})
    for split in ("id_val", "id_test"):
        before, after = headline(of_ridge, split), headline(summary, split)
        if before is not None and after is not None:
            words = f"{headline_words(summary, split)} for {headline_words(of_ridge, split)}"
            return (
                f"the trained student is below its closed form ({headline_label([summary], split)} {words}): "
                "lower optim.lr, or keep that head with --head-only"
                if before - after > _clearly(summary, split, before, after)
                else ""
            )
    return ""


def _clearly(summary: Mapping[str, Any], split: str, before: float, after: float) -> float:
    """Return what a difference must be more than; of accuracies at least its standard error."""
    if is_by_cosine(summary, split):
        return CLEARLY / 100
    images = int(summary.get("space", {}).get(split, {}).get("images", 0))
    variance = (before * (100 - before) + after * (100 - after)) / images if images else 0.0
    return max(CLEARLY, float(variance**0.5))


def one_class_notes(alone: Mapping[str, bool]) -> list[str]:
    """Return a line for every split of one class; whether it was judged among all classes as well."""
    return [
        f"{split} has one class, among which any answer is right, and 100% says nothing"
        + (": read what it does among all classes" if among_all else "")
        for split, among_all in alone.items()
    ]
