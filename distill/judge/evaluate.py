"""One evaluator for student and teacher: the teacher is a student whose output is the cached row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor

from cache import EmbeddingCache
from cache.runtime.errors import UserError, WrongOption
from cache.sources.splits import LABELLED, POOL, split_name
from cache.store.text_banks import TextBank
from distill.headline import headline
from distill.judge.space_of_split import SpaceResult
from distill.metrics import ImageScores, harmonic_mean, id_against_ood
from distill.robotics.metrics import EpisodeResult
from distill.student.classifier import AllClasses, Classifier

OOD_SPLITS = ("ood_test", "ood_query")


@dataclass(frozen=True, kw_only=True)
class AmongAll:
    """How well one split is classified where all ``classes`` of the data compete; see :class:`SplitResult`.

    ``id_score_N`` is every image's largest logit among the ID classes, None where there are none.
    """

    classes: int
    accuracy: float
    top5_accuracy: float | None
    ece: float | None
    id_score_N: Tensor | None = field(repr=False, compare=False)


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """How well one split is classified: among its own classes, and ``among_all`` of the data.

    ``accuracy`` is the macro accuracy in percent, ``loss`` the mean cross-entropy, ``per_class`` each
    class's accuracy in percent; classes without images are left out of all three. ``top5_accuracy`` is macro
    as well, ``ece`` the calibration error at the classifier's own temperature; both are None where they could
    not be anything else. ``among_all`` is None where nothing but a split's own classes was asked for.
    Among one class any answer is right: ``per_class`` is among all there, as is :attr:`headline`.
    ``other_data`` says in what the images are not those that the run was trained or judged with, '' where
    they are.
    """

    split: str
    accuracy: float
    loss: float
    images: int
    per_class: dict[str, float]
    unreadable: dict[str, str] = field(default_factory=dict)
    other_data: str = ""
    top5_accuracy: float | None = None
    ece: float | None = None
    among_all: AmongAll | None = None

    @property
    def chance(self) -> float:
        """The accuracy of guessing, in percent."""
        return 100 / len(self.per_class)

    @property
    def headline(self) -> float:
        """Its accuracy among its own classes, of one class among all where others compete."""
        numbers = {f"{self.split}_{name}": value for name, value in self.metrics().items()}
        return headline(numbers, self.split) or 0.0

    def metrics(self) -> dict[str, float]:
        """Return every number under the ending that it has among a run's metrics."""
        numbers = {name: getattr(self, name) for name in ("accuracy", "loss", "top5_accuracy", "ece")}
        if self.among_all is not None:
            numbers |= {f"all_{name}": getattr(self.among_all, name) for name in _AMONG_ALL}
        return {name: value for name, value in numbers.items() if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return all but the images' own scores as plain values."""
        value = {f.name: getattr(self, f.name) for f in fields(self)}
        if self.among_all is not None:
            value["among_all"] = {name: getattr(self.among_all, name) for name in ("classes", *_AMONG_ALL)}
        return value


_AMONG_ALL = ("accuracy", "top5_accuracy", "ece")
Result = SplitResult | EpisodeResult | SpaceResult
"""How well a split is judged: of photos, of episodes, or of photos whose teacher has no texts."""


def metrics_of(results: Mapping[str, Result]) -> dict[str, float]:
    """Return the numbers of several splits by the names that they have in a run's metrics.

    ``SPLIT_accuracy`` (its own classes) and ``SPLIT_all_accuracy`` (all compete), and so for
    ``top5_accuracy`` and ``ece``; ``SPLIT_loss``; and those of both kinds of test images: :func:`both_kinds`.
    Of episodes see :meth:`distill.robotics.metrics.EpisodeResult.flat`.
    """
    episodes = [result for result in results.values() if isinstance(result, EpisodeResult)]
    if episodes:
        return {name: value for result in episodes for name, value in result.flat().items()}
    by_split = {n: r.metrics() for n, r in results.items() if isinstance(r, SplitResult | SpaceResult)}
    endings = dict.fromkeys(ending for numbers in by_split.values() for ending in numbers)
    flat = {
        f"{n}_{ending}": numbers[ending]
        for ending in endings
        for n, numbers in by_split.items()
        if ending in numbers
    }
    return flat | both_kinds(results)


def both_kinds(results: Mapping[str, Result]) -> dict[str, float]:
    """Return ``all_harmonic_mean`` and ``id_ood_auroc``, of another head than the first ``all@HEAD_...``.

    They are of the ID test images and the OOD test images (of a few-shot run, those that are not support);
    the first is the harmonic mean of both accuracies among all classes, percent, the second
    :func:`distill.metrics.id_against_ood`. Empty without results of both among all classes.
    """
    numbers = {}
    photos = {name: result for name, result in results.items() if isinstance(result, SplitResult)}
    for name, result in photos.items():
        split, at, head = name.partition("@")
        seen = photos.get(f"id_test{at}{head}")
        ours, theirs = (seen.among_all if seen is not None else None), result.among_all
        if split not in OOD_SPLITS or ours is None or theirs is None:
            continue
        numbers[f"all{at}{head}_harmonic_mean"] = harmonic_mean(ours.accuracy, theirs.accuracy)
        if ours.id_score_N is not None and theirs.id_score_N is not None:
            numbers[f"id_ood{at}{head}_auroc"] = id_against_ood(ours.id_score_N, theirs.id_score_N)
    return numbers


@torch.no_grad()
def evaluate(
    outputs: Iterable[tuple[Tensor, Tensor]],
    classifier: Classifier,
    *,
    split: str,
    class_names: Sequence[str],
    among: AllClasses | None = None,
    unreadable: Mapping[str, str] | None = None,
) -> SplitResult:
    """Judge outputs against labels.

    ``outputs`` are batches of (outputs [B, D], labels [B] int64, which index ``class_names``). ``classifier``
    turns outputs into logits over ``class_names``; where ``among``, every class of the data, is given, over
    those, and the split is judged among its own classes, and where all compete. ``unreadable`` are images
    that could not be judged, by key, with the reason; filled while ``outputs`` is read. UserError if there is
    no image to judge.
    """
    own, every, id_score = _scored(outputs, classifier, class_names, among)
    if not own:
        raise UserError(f"no image of {split} could be read", fix="check that the files are images.")
    scores = ImageScores.join(own)
    metrics = scores.metrics()
    among_all, per_class_C = None, metrics.per_class_C
    if among is not None:
        all_scores = ImageScores.join(every)
        of_all = all_scores.metrics()
        among_all = AmongAll(
            classes=all_scores.classes,
            accuracy=of_all.accuracy,
            top5_accuracy=of_all.top5_accuracy,
            ece=of_all.ece,
            id_score_N=torch.cat(id_score) if id_score else None,
        )
        if len(class_names) == 1:
            per_class_C = of_all.per_class_C[among.columns(class_names)]
    return SplitResult(
        split=split,
        accuracy=metrics.accuracy,
        loss=metrics.loss,
        images=len(scores.labels_N),
        per_class={
            name: float(value)
            for name, value in zip(class_names, per_class_C, strict=True)
            if not value.isnan()
        },
        unreadable=dict(unreadable or {}),
        top5_accuracy=metrics.top5_accuracy,
        ece=metrics.ece,
        among_all=among_all,
    )


def _scored(
    outputs: Iterable[tuple[Tensor, Tensor]],
    classifier: Classifier,
    class_names: Sequence[str],
    among: AllClasses | None,
) -> tuple[list[ImageScores], list[ImageScores], list[Tensor]]:
    """Return, batch by batch, the scores among own classes and among all, and the largest ID logits."""
    columns = among.columns(class_names) if among is not None else []
    own: list[ImageScores] = []
    every: list[ImageScores] = []
    id_score = []
    for output, label in outputs:
        logits = classifier(output)
        label = label.to(logits.device)
        if among is None:
            own.append(ImageScores.of(logits, label))
            continue
        own.append(ImageScores.of(logits[:, columns], label))
        every.append(ImageScores.of(logits, torch.tensor(columns, device=label.device)[label]))
        if among.id_classes:
            id_score.append(logits[:, : len(among.id_classes)].amax(dim=1).float().cpu())
    return own, every, id_score


def labelled_split(name: str) -> str:
    """Return our name of a split whose images have labels; UserError for another, and for the pool."""
    split = split_name(name)
    if split == POOL:
        raise UserError(
            "the images of the pool have no label to be judged by", fix=f"choose from {', '.join(LABELLED)}."
        )
    return split


def refuse_negative_text(cache: EmbeddingCache, negative_text: str | None) -> None:
    """Refuse a bank of negative texts where a cache's images have no use for one; WrongOption."""
    if negative_text and not cache.holds_episodes:
        raise WrongOption("--negative-text is for episodes, and these are photos", fix="leave it out.")


def competing(classes: AllClasses | None, bank: TextBank) -> AllClasses | None:
    """Return classes that can compete by a text bank: None where one has no text."""
    return classes if classes is not None and {*bank.class_folders}.issuperset(classes.names) else None
