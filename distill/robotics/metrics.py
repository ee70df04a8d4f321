"""How well objects are recognised: counts over all episodes, one ratio each at the end, in percent.

What is undefined (precision where nothing was recognised, recall and average precision where no object is
there) is left out, neither 0 nor NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from cache.runtime.devices import widest_float
from distill.metrics import average_precision
from distill.robotics.scores import scores

CPU = torch.device("cpu")


@dataclass(kw_only=True)
class ObjectCounts:
    """Right and wrong decisions over objects and episodes, counted on the device.

    ``counts_4``, as :func:`cache.runtime.devices.widest_float`: true positives, false positives, true
    negatives, false negatives.
    """

    counts_4: Tensor
    threshold: float = 0.5

    @classmethod
    def none(cls, device: torch.device = CPU, *, threshold: float = 0.5) -> ObjectCounts:
        """Return counts of nothing."""
        zeros = torch.zeros(4, dtype=widest_float(device), device=device)
        return cls(counts_4=zeros, threshold=threshold)

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count scores [B, C] in 0..1 against labels [B, C] of 0 and 1."""
        decided, there = scores >= self.threshold, labels.bool()
        outcomes = (decided & there, decided & ~there, ~decided & ~there, ~decided & there)
        self.counts_4 += torch.stack([outcome.sum() for outcome in outcomes])

    def state(self) -> dict[str, Tensor]:
        """Return the counts."""
        return {"counts_4": self.counts_4}

    def ratios(self) -> dict[str, float]:
        """Return accuracy, precision and recall in percent, each where it is defined."""
        tp, fp, tn, fn = self.counts_4.tolist()
        counts = {
            "accuracy": (tp + tn, tp + fp + tn + fn),
            "precision": (tp, tp + fp),
            "recall": (tp, tp + fn),
        }
        return {name: 100 * count / whole for name, (count, whole) in counts.items() if whole}

    def metrics(self) -> dict[str, float]:
        """Return the ratios as an epoch's training metrics."""
        return {f"train_{name}": value for name, value in self.ratios().items()}


@dataclass(frozen=True, kw_only=True)
class EpisodeResult:
    """How well a split's objects are recognised.

    ``groups`` has the metrics in percent of ``all`` objects, and where there are both kinds of ``id_objects``
    and ``ood_objects``: accuracy, precision and recall at the threshold, and ``average_precision``, the mean
    over the group's objects that occur. ``per_object`` is each one's average precision. ``other_data`` says
    in what the episodes are not those that the run was trained or judged with, '' where they are.
    """

    split: str
    episodes: int
    groups: dict[str, dict[str, float]]
    per_object: dict[str, float]
    unreadable: dict[str, str] = field(default_factory=dict)
    other_data: str = ""

    @property
    def images(self) -> int:
        """The number of episodes."""
        return self.episodes

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)

    def flat(self) -> dict[str, float]:
        """Return ``SPLIT_METRIC`` of all objects and ``SPLIT_GROUP_METRIC`` of the others."""
        return {
            f"{self.split}_{'' if group == 'all' else group + '_'}{name}": value
            for group, metrics in self.groups.items()
            for name, value in metrics.items()
        }


def judge_objects(
    margin_NC: Tensor,
    labels_NC: Tensor,
    *,
    score_bias: Tensor | float = 0.0,
    split: str,
    class_names: Sequence[str],
    id_objects: Sequence[str],
    threshold: float = 0.5,
) -> EpisodeResult:
    """Judge margins [N, C] against labels [N, C] of 0 and 1; see :class:`EpisodeResult`.

    A margin's sigmoid is the probability. Decisions are by the scores, with the learnt bias b; average
    precision is by the margins, which stand in the same order, but are not made equal by rounding or
    clamping to 0 and 1.
    """
    scores_NC = scores(margin_NC.sigmoid(), torch.as_tensor(score_bias))
    groups = {"all": list(range(len(class_names)))}
    trained = [i for i in groups["all"] if class_names[i] in set(id_objects)]
    if 0 < len(trained) < len(class_names):
        new = [i for i in groups["all"] if i not in trained]
        groups |= {"id_objects": trained, "ood_objects": new}
    there_NC = labels_NC.bool()
    per_object = {
        name: 100 * average_precision(margin_NC[:, c], there_NC[:, c])
        for c, name in enumerate(class_names)
        if there_NC[:, c].any()
    }
    return EpisodeResult(
        split=split,
        episodes=len(scores_NC),
        groups={
            group: _metrics(scores_NC[:, inside], labels_NC[:, inside], threshold)
            | _mean_precision([per_object[class_names[i]] for i in inside if class_names[i] in per_object])
            for group, inside in groups.items()
        },
        per_object=per_object,
    )


def _metrics(scores: Tensor, labels: Tensor, threshold: float) -> dict[str, float]:
    counts = ObjectCounts.none(threshold=threshold)
    counts.add(scores, labels)
    return counts.ratios()


def _mean_precision(values: Sequence[float]) -> dict[str, float]:
    return {"average_precision": sum(values) / len(values)} if values else {}
