"""How well: logits and labels -> every number of a classifier. Pure.

Shape suffixes: N = images, C = classes. Accuracies are in percent and macro: the mean of every class's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

TOP = 5
BINS = 15


@dataclass(frozen=True, kw_only=True)
class ImageScores:
    """What logits say of N images, on the CPU: nothing of size N x C is kept.

    ``right_N`` the highest logit is the label's, ``top5_N`` it is among the five highest (None with five
    classes or fewer, where it always is), ``confidence_N`` the highest softmax probability, ``loss_N`` the
    cross-entropy; ``classes`` is C.
    """

    labels_N: Tensor
    right_N: Tensor
    top5_N: Tensor | None
    confidence_N: Tensor
    loss_N: Tensor
    classes: int

    @classmethod
    def of(cls, logits_NC: Tensor, labels_N: Tensor) -> ImageScores:
        """Read logits float [N, C] with their temperature, and labels int64 [N]."""
        classes = logits_NC.shape[1]
        places = logits_NC.topk(TOP, dim=1).indices if classes > TOP else None
        # float32 at least: bfloat16 has no probability between 0.996 and 1.
        confidence = logits_NC.float().softmax(dim=1).amax(dim=1)
        return cls(
            labels_N=labels_N.cpu(),
            right_N=(logits_NC.argmax(dim=1) == labels_N).cpu(),
            top5_N=(places == labels_N[:, None]).any(dim=1).cpu() if places is not None else None,
            confidence_N=confidence.cpu(),
            loss_N=F.cross_entropy(logits_NC.float(), labels_N, reduction="none").cpu(),
            classes=classes,
        )

    @classmethod
    def join(cls, batches: Sequence[ImageScores]) -> ImageScores:
        """Return the scores of several batches as one."""
        top5 = [batch.top5_N for batch in batches if batch.top5_N is not None]
        return cls(
            labels_N=torch.cat([batch.labels_N for batch in batches]),
            right_N=torch.cat([batch.right_N for batch in batches]),
            top5_N=torch.cat(top5) if top5 else None,
            confidence_N=torch.cat([batch.confidence_N for batch in batches]),
            loss_N=torch.cat([batch.loss_N for batch in batches]),
            classes=batches[0].classes,
        )

    def metrics(self) -> ClassMetrics:
        """Return every metric of these images; ValueError where there is none."""
        if not len(self.labels_N):
            raise ValueError("there is no image to judge")
        per_class = 100 * class_means(self.right_N, self.labels_N, self.classes)
        top5 = class_means(self.top5_N, self.labels_N, self.classes) if self.top5_N is not None else None
        return ClassMetrics(
            accuracy=float(per_class.nanmean()),
            top5_accuracy=100 * float(top5.nanmean()) if top5 is not None else None,
            ece=calibration_error(self.confidence_N, self.right_N) if self.classes > 1 else None,
            loss=float(self.loss_N.double().mean()),
            per_class_C=per_class,
        )


@dataclass(frozen=True, kw_only=True)
class ClassMetrics:
    """How well images are classified among C classes.

    ``accuracy`` and ``top5_accuracy`` are macro, percent, over the classes present; ``loss`` the mean
    cross-entropy; ``ece`` see :func:`calibration_error`; ``per_class_C`` float64, NaN without images. What
    could not be anything else is None: top-5 of five classes or fewer, the calibration of one.
    """

    accuracy: float
    top5_accuracy: float | None
    ece: float | None
    loss: float
    per_class_C: Tensor


def class_means(values_N: Tensor, labels_N: Tensor, num_classes: int) -> Tensor:
    """Return the mean of every class's values, float64 [C]; NaN for a class without images."""
    sums = torch.bincount(labels_N, weights=values_N.double(), minlength=num_classes)
    return sums / torch.bincount(labels_N, minlength=num_classes)


def macro_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the mean accuracy over the classes present, percent, of logits [N, C] and labels int64 [N].

    Raises
    ------
    ValueError
        If there is no image.
    """
    return ImageScores.of(logits, labels).metrics().accuracy


def calibration_error(confidence_N: Tensor, right_N: Tensor, *, bins: int = BINS) -> float:
    """Return the expected calibration error, 0 to 1 (Guo et al. 2017, arXiv 1706.04599), with equal bins.

    The mean distance of confidence and accuracy over bins of confidence, each as its share of the images.
    Confidences are softmax probabilities at whatever temperature the logits had. 1 is in the last bin.
    """
    confidence_N = confidence_N.double()
    edges = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=confidence_N.device)
    place_N = (torch.bucketize(confidence_N, edges, right=True) - 1).clamp(0, bins - 1)
    apart = torch.bincount(place_N, weights=confidence_N - right_N.double(), minlength=bins)
    return float(apart.abs().sum() / len(confidence_N))


# Areas under curves are written out here, and tested against torchmetrics': importing that takes longer than
# a cache's teacher to be judged.
def id_against_ood(id_N: Tensor, ood_N: Tensor) -> float:
    """Return the AUROC, 0 to 1: how often an ID image has the higher score, ties counting half.

    The score of an image is its largest logit among the *ID* classes, in the same order as its largest cosine
    with an ID class text: the maximum logit of Hendrycks et al. 2022 (arXiv 1911.11132). 0.5 is chance.
    """
    n_id, n_ood = len(id_N), len(ood_N)
    _, place, ties = torch.cat([id_N, ood_N]).unique(return_inverse=True, return_counts=True)
    rank = (
        ties.cumsum(0).double() - (ties.double() - 1) / 2
    )  # from 1, of equal scores the mean (Mann-Whitney)
    above = rank[place[:n_id]].sum() - n_id * (n_id + 1) / 2
    return float(above / (n_id * n_ood))


def average_precision(scores_N: Tensor, there_N: Tensor) -> float:
    """Return the mean precision over the steps of recall, 0 to 1; at equal scores all are taken at once.

    ``there_N`` says, bool, which are to be found, at least one.
    """
    values, place = scores_N.unique(return_inverse=True)
    there = torch.bincount(place, weights=there_N.double(), minlength=len(values)).flip(0)
    taken = torch.bincount(place, minlength=len(values)).flip(0)
    return float((there * there.cumsum(0) / taken.cumsum(0)).sum() / there.sum())


def auroc_interval(auroc: float, n_id: int, n_ood: int) -> tuple[float, float]:
    """Return the 95% interval of an AUROC over so many images (Hanley and McNeil 1982, Radiology 143)."""
    both_id, both_ood = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = (
        auroc * (1 - auroc) + (n_id - 1) * (both_id - auroc**2) + (n_ood - 1) * (both_ood - auroc**2)
    ) / (n_id * n_ood)
    reach = 1.959964 * math.sqrt(max(0.0, variance))
    return max(0.0, auroc - reach), min(1.0, auroc + reach)


def harmonic_mean(one: float, other: float) -> float:
    """Return 2ab / (a + b), 0 where either is 0: high only where both are (Xian et al. 2018, 1707.00600)."""
    return 2 * one * other / (one + other) if one + other else 0.0


@dataclass(kw_only=True)
class ClassCounts:
    """Right answers and images of every class, counted on the device."""

    right_C: Tensor
    seen_C: Tensor

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count one batch: scores [B, C], labels int64 [B], of which -1 (none) counts nothing."""
        if not scores.shape[1]:  # of a teacher without texts
            return
        has, label = (labels >= 0).to(self.seen_C), labels.clamp(min=0)
        self.seen_C.index_add_(0, label, has)
        self.right_C.index_add_(0, label, (scores.argmax(dim=1) == labels).to(self.right_C))

    def state(self) -> dict[str, Tensor]:
        """Return both counts."""
        return dict(vars(self))

    def metrics(self) -> dict[str, float]:
        """Return the macro accuracy over the classes seen, in percent; nothing where no image had a label."""
        seen = self.seen_C > 0
        if not seen.any():
            return {}
        return {"train_accuracy": float((100 * self.right_C[seen] / self.seen_C[seen]).mean())}
