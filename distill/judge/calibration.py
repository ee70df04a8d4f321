"""Probabilities that can be believed: one temperature for a student's cosines, and how far they are off.

Shapes: N = images, C = classes. numpy alone, so that what is shipped can read what it says without torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.headline import SET_ASIDE

BINS = 15
# By split, what a temperature is fitted on: images set aside; the ID test, where a run set none aside; images
# of a pool, whose labels are the teacher's answers; training images, which a student knows best of all.
FITTED_ON = {"id_val": "id_val", "id_test": "id_test", "pool_val": "teacher", "train": "training"}
SET_ON = {
    "id_val": "images set aside, id_val",
    "id_test": "the ID test images, the run having set no id_val aside",
    "teacher": "the teacher's own answers, no image having a label",
    "training": "the training images, there being no others: it is too sure of itself on new ones",
}
# Of the temperature between its bounds, in natural logarithms: a hundredth of a percent.
PRECISION = 1e-4


@dataclass(frozen=True, kw_only=True)
class ReliabilityBin:
    """The images of one bin: how sure their answers are, and how many of these are right, both 0 to 1."""

    confidence: float
    accuracy: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Reliability:
    """How well the probabilities of one split's answers among some ``classes`` can be believed.

    ``before`` is the expected calibration error in percent (Guo et al. 2017, arXiv 1706.04599) at the
    temperature that the student was trained with, ``ece`` at the fitted one, as ``bins`` are.
    """

    classes: int
    images: int
    before: float
    ece: float
    bins: tuple[ReliabilityBin, ...]

    def __post_init__(self) -> None:
        if not (0 <= self.before <= 100 and 0 <= self.ece <= 100):
            raise ValueError(f"calibration errors are {self.before!r:.20} and {self.ece!r:.20} percent")


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """The temperature that a student's cosines are divided by, and what it does on the test splits.

    ``set_on`` is one of :data:`SET_ON`, of so many ``images``, among their own classes; ``trained_with``
    the temperature of the training. ``splits`` are among each split's own classes, ``among_all`` where all
    classes of the data compete.
    """

    temperature: float
    trained_with: float
    set_on: str
    images: int
    splits: dict[str, Reliability]
    among_all: dict[str, Reliability]

    def __post_init__(self) -> None:
        if self.set_on not in SET_ON:
            raise ValueError(f"the temperature is set on {self.set_on!r:.20}")
        if not (self.temperature > 0 and self.trained_with > 0):
            raise ValueError(f"temperatures are {self.temperature!r:.20} and {self.trained_with!r:.20}")

    @property
    def set_on_words(self) -> str:
        """What it was fitted on, in words."""
        return SET_ON[self.set_on]


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The images of one split beside all classes of the data.

    ``similarities`` [N, C] are cosines, ``labels`` [N] columns of them, ``own`` the columns of the classes
    that the split has.
    """

    similarities: NDArray[np.float32]
    labels: NDArray[np.int64]
    own: tuple[int, ...]

    def among_own(self) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Return the similarities and labels among the split's own classes."""
        place = {column: i for i, column in enumerate(self.own)}
        return self.similarities[:, list(self.own)], np.array([place[i] for i in self.labels.tolist()])


def calibrated(
    splits: Mapping[str, Compared], *, trained_with: float, temperature: float | None = None
) -> Calibration | None:
    """Return a student's calibration, fitted on the first of :data:`FITTED_ON` that there is.

    ``temperature`` is another one than the fitted, to be judged. None where that split has no image, or one
    class alone, whose answers are always right.
    """
    split = next((name for name in FITTED_ON if name in splits), None)
    if split is None or len(splits[split].own) < 2 or not len(splits[split].labels):
        return None
    fitted = fitted_temperature(*splits[split].among_own()) if temperature is None else temperature
    tests = {name: one for name, one in splits.items() if name not in SET_ASIDE} or dict(splits)
    tests = {name: one for name, one in tests.items() if len(one.labels)}
    among_own = {name: one.among_own() for name, one in tests.items() if len(one.own) > 1}
    among_all = {name: (one.similarities, one.labels) for name, one in tests.items()}
    of_splits, of_all = (
        {
            name: reliability_of(*one, temperature=fitted, trained_with=trained_with)
            for name, one in some.items()
        }
        for some in (among_own, among_all)
    )
    return Calibration(
        temperature=fitted,
        trained_with=trained_with,
        set_on=FITTED_ON[split],
        images=len(splits[split].labels),
        splits=of_splits,
        among_all=of_all,
    )


def fitted_temperature(similarities: NDArray[np.floating], labels: NDArray[np.integer]) -> float:
    """Return the temperature of least negative log likelihood of similarities [N, C], labels int [N].

    Where nearly every answer is right the likelihood would have no end to certainty; the mean probability of
    the answers is then let go no further than Laplace's rule allows after N right ones, (N + 1) / (N + 2).
    Where nothing in them tells the label it is so large that all classes are as likely.

    Raises
    ------
    ValueError
        If there is no image, or a label is no column.
    """
    rows = np.asarray(similarities, dtype=np.float64)
    at = np.arange(len(rows))
    if not len(rows) or labels.min() < 0 or labels.max() >= rows.shape[1]:
        raise ValueError(f"{len(rows)} images have no labels among {rows.shape[1:]} classes")
    rows = rows - rows.max(axis=1, keepdims=True)
    spread = float(rows.std()) or 1.0
    of_label = rows[at, labels].mean()
    surest = (len(rows) + 1) / (len(rows) + 2)

    def too_sure(sharpness: float) -> bool:
        probabilities = np.exp(sharpness * rows)
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        # The derivative of the mean negative log likelihood by 1 / temperature, in which it is convex.
        slope = (probabilities * rows).sum(axis=1).mean() - of_label
        return bool(slope > 0 or probabilities.max(axis=1).mean() > surest)

    return 1 / _last(lambda sharpness: not too_sure(sharpness), 1e-3 / spread, 1e5 / spread)


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return about the largest number for which something holds that holds for no larger one."""
    while np.log(high / low) > PRECISION:
        middle = float(np.sqrt(low * high))
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low


def probabilities_of(similarities: NDArray[np.floating], temperature: float) -> NDArray[np.float64]:
    """Return the softmax of similarities [N, C] divided by a temperature."""
    logits = np.asarray(similarities, dtype=np.float64) / temperature
    scores = np.exp(logits - logits.max(axis=1, keepdims=True))
    return scores / scores.sum(axis=1, keepdims=True)


def expected_calibration_error(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, bins: int = BINS
) -> float:
    """Return the mean distance of confidence and accuracy over equal bins, in percent.

    Of probabilities [N, C] and labels int [N]: each bin of the answers' confidence counts as its share of the
    images.
    """
    # Here, because it takes torch.
    import torch

    from distill.metrics import calibration_error

    confidence, right = _answers(probabilities, labels)
    return 100 * calibration_error(torch.from_numpy(confidence), torch.from_numpy(right), bins=bins)


def reliability(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer], *, bins: int = BINS
) -> tuple[ReliabilityBin, ...]:
    """Return the bins of :func:`expected_calibration_error` that have images, least confident first."""
    confidence, right = _answers(probabilities, labels)
    place = np.searchsorted(np.linspace(0, 1, bins + 1), confidence, side="right") - 1
    return tuple(
        ReliabilityBin(
            confidence=float(confidence[place == i].mean()),
            accuracy=float(right[place == i].mean()),
            images=int((place == i).sum()),
        )
        for i in np.unique(place)
    )


def _answers(
    probabilities: NDArray[np.floating], labels: NDArray[np.integer]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return how sure every answer is [N], and whether it is right, 0 or 1 [N]."""
    probabilities = np.asarray(probabilities, dtype=np.float64)
    # Just below 1: the last bin has it.
    confidence = probabilities.max(axis=1).clip(max=np.nextafter(1.0, 0.0))
    return confidence, (probabilities.argmax(axis=1) == labels).astype(np.int64)


def reliability_of(
    similarities: NDArray[np.floating],
    labels: NDArray[np.integer],
    *,
    temperature: float,
    trained_with: float,
) -> Reliability:
    """Return how well the answers of similarities [N, C] can be believed at two temperatures."""
    then, now = (probabilities_of(similarities, t) for t in (trained_with, temperature))
    return Reliability(
        classes=similarities.shape[1],
        images=len(labels),
        before=expected_calibration_error(then, labels),
        ece=expected_calibration_error(now, labels),
        bins=reliability(now, labels),
    )
