"""None of these: when an image is of nothing that was asked for, by its cosines with names and other words.

Two scores, higher for an image of one of the names: NegLabel (Jiang et al., ICLR 2024, arXiv 2403.20078) by
the words of a vocabulary that are far from all names, and without one MCM (Ming et al. 2022, 2211.13445).
Both depend on which names are asked for, so that a threshold is a function of their number. numpy alone: it
serves what is shipped.

Shapes: B, N = images, C = names, V = words, M = words far from the names, D = embedding size. Rows are unit
rows float32; sums are float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

NEGLABEL, MCM = "neglabel", "mcm"
# CLIP's own, at which a hundredth of a cosine counts, and others for students whose cosines differ more.
NEGLABEL_TEMPERATURE, TEMPERATURES = 0.01, (0.01, 0.02, 0.05)
# At 1 what counts is how far the nearest name lies above the mean of all, as in MCM's own paper.
MCM_TEMPERATURES = (0.2, 1.0)
# How often half of the classes are the unknown ones, and on how many images, to choose a temperature by.
TURNS, CHOOSE_BY = 3, 500
# How often classes are drawn into groups, to set a threshold by.
GROUPINGS = 3
# Of a vocabulary that are far from any names: the nearest tenth may say the same.
FAR = 0.9
# An AUROC below WEAK puts an image of either kind on the wrong side of the other in two of five pairs.
CHANCE, WEAK = 0.5, 0.6
SURE = 1e6
REJECT_ON = ("id_val", "id_test", "teacher")
# Of ID images that the threshold takes for one of the names.
ACCEPTED = 0.95
# Images, or names, whose cosines with a vocabulary are computed at once: 40 MB of float64 with 20,000 words.
AT_ONCE = 256
Rows = NDArray[np.float32]


def neglabel_odds(names: Rows, negatives: Rows, temperature: float) -> NDArray[np.float64]:
    """Return the log odds of NegLabel's score by cosines [B, C] with names and [B, M] with negatives.

    The score is sum_i exp(names_i / t) / (sum_i exp(names_i / t) + sum_j exp(negatives_j / t)), which
    saturates where its log odds do not.
    """
    return _log_sum(names, temperature) - _log_sum(negatives, temperature)


def mcm_odds(names: Rows, temperature: float) -> NDArray[np.float64]:
    """Return the log odds of MCM's score, the largest softmax probability, by cosines [B, C] with names.

    Of one name, which is sure, a million.
    """
    if names.shape[1] == 1:
        return np.full(len(names), SURE)
    ordered = np.sort(names, axis=1)
    return ordered[:, -1] / temperature - _log_sum(ordered[:, :-1], temperature)


def _log_sum(cosines: Rows, temperature: float) -> NDArray[np.float64]:
    """Return log sum_i exp(cosine_i / t) of every row."""
    sums = np.empty(len(cosines))
    for start in range(0, len(cosines), AT_ONCE):
        logits = cosines[start : start + AT_ONCE].astype(np.float64) / temperature
        most = logits.max(axis=1, keepdims=True)
        sums[start : start + AT_ONCE] = most[:, 0] + np.log(np.exp(logits - most).sum(axis=1))
    return sums


def far_from(names: Rows, vocabulary_rows: Rows, *, count: int) -> NDArray[np.int64]:
    """Return which ``count`` words [V, D] are farthest from their nearest name [C, D], in their order."""
    nearest = np.full(len(vocabulary_rows), -np.inf, dtype=np.float32)
    for start in range(0, len(names), AT_ONCE):
        cosines = vocabulary_rows @ names[start : start + AT_ONCE].T
        np.maximum(nearest, cosines.max(axis=1), out=nearest)
    return np.sort(np.argsort(nearest, kind="stable")[:count])


def negatives_of(words: int, names: int) -> int:
    """Return how many of so many words are negatives beside so many names, which may be words themselves."""
    return max(0, min(round(FAR * words), words - names))


@dataclass(frozen=True, kw_only=True)
class Threshold:
    """With so many ``names`` an image is none of them where its score's log odds are below ``least``."""

    names: int
    least: float


@dataclass(frozen=True, kw_only=True)
class Unknown:
    """How well images that are none of the ID classes are known as such, with these as the only names.

    Of so many ``images`` the share ``rejected`` in percent; ``auroc`` (``low`` to ``high``: its 95% interval)
    says how well the score tells them from ID images, 0.5 is chance; ``fpr95`` is the share in percent that
    would be taken for one of the names where 95% of those ID images are.
    """

    images: int
    rejected: float
    auroc: float
    low: float
    high: float
    fpr95: float

    def __post_init__(self) -> None:
        if not (0 <= self.rejected <= 100 and 0 <= self.fpr95 <= 100 and 0 <= self.auroc <= 1):
            raise ValueError(f"of unknown images {self.rejected!r:.20}% are rejected")

    @property
    def near_chance(self) -> bool:
        """Whether they are told apart too badly to be acted on.

        That is where the interval does not lie above chance, or the AUROC is below 0.6.
        """
        return self.low <= CHANCE or self.auroc < WEAK


@dataclass(frozen=True, kw_only=True)
class Reject:
    """When an image is none of the names that are asked for, whatever they are.

    ``score`` is :data:`NEGLABEL`, with the words of the vocabulary that are far from the names, or
    :data:`MCM`, at ``temperature``; an image is none of them where its log odds lie below what
    ``thresholds`` say of so many names (:func:`least_odds`), which 95% of the ``images`` of ``set_on`` reach.
    ``id_kept`` is the share in percent of the ID test images that is kept with the ID classes as the only
    names; ``unknown`` what it does on images of something else: ``ood_test``, or a source by its name.
    """

    score: str
    temperature: float
    thresholds: tuple[Threshold, ...]
    set_on: str
    images: int
    id_kept: float | None = None
    unknown: dict[str, Unknown] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.set_on not in REJECT_ON or self.score not in (NEGLABEL, MCM):
            raise ValueError(f"reject is {self.score!r:.20} set on {self.set_on!r:.20}")
        numbers = [one.names for one in self.thresholds]
        if not self.temperature > 0 or not numbers or sorted({*numbers}) != numbers or numbers[0] < 1:
            raise ValueError(f"reject has thresholds for {numbers!r:.40} names")

    def in_words(self) -> str:
        """Return all of it as words."""
        how = "NegLabel, by the vocabulary" if self.score == NEGLABEL else "MCM, without a vocabulary"
        own = ", the run having set no id_val aside" if self.set_on == "id_test" else ""
        words = f"'none of these' by {how}, set on {self.set_on}{own}"
        if self.id_kept is not None:
            words += f"; among the ID classes it keeps {self.id_kept:.1f}% of the ID test images"
        for name, one in self.unknown.items():
            words += (
                f"; rejects {one.rejected:.1f}% of {one.images:,} of {name} (AUROC of ID against them "
                f"{one.auroc:.3f}, {one.low:.3f} to {one.high:.3f})"
            )
            words += ": near chance or worse, do not rely on it" if one.near_chance else ""
        return words


@dataclass(frozen=True, kw_only=True)
class Scorer:
    """A score of images with any names: ``words`` [V, D] of a vocabulary, or none, and its temperature."""

    temperature: float
    words: Rows | None = None

    @property
    def score(self) -> str:
        """Which one it is."""
        return NEGLABEL if self.words is not None else MCM

    def negatives(self, names: Rows) -> NDArray[np.int64] | None:
        """Return the words that are far from some names [C, D]; None without a vocabulary."""
        if self.words is None:
            return None
        return far_from(names, self.words, count=negatives_of(len(self.words), len(names)))

    def odds(
        self, rows: Rows, names: Rows, negatives: NDArray[np.int64] | None = None
    ) -> NDArray[np.float64]:
        """Return the log odds [B] of images [B, D] with names [C, D].

        ``negatives`` are those of :meth:`negatives`, found again where they are not given.
        """
        negatives = self.negatives(names) if negatives is None else negatives
        if negatives is None or self.words is None:
            return mcm_odds(rows @ names.T, self.temperature)
        words = self.words[negatives]
        blocks = (rows[start : start + AT_ONCE] for start in range(0, len(rows), AT_ONCE))
        odds = [neglabel_odds(block @ names.T, block @ words.T, self.temperature) for block in blocks]
        return np.concatenate(odds) if odds else np.zeros(0)


def fitted_scorer(
    rows: Rows, own: NDArray[np.int64], names: Rows, *, words: Rows | None, temperature: float
) -> Scorer:
    """Return the score for ID images [N, D] of the ID classes ``own`` [N] among their names [C, D].

    Its temperature, of :data:`TEMPERATURES`, or for MCM of that of the probabilities, ``temperature``, and
    :data:`MCM_TEMPERATURES`, is that by which images of half of the ID classes are told best, as an AUROC,
    from images of the others, that half alone being asked for: no image of anything unknown chooses it. Of
    fewer than four classes it is the first.
    """
    words = words if words is not None and len(words) > len(names) else None
    tried = TEMPERATURES if words is not None else (temperature, *MCM_TEMPERATURES)
    if len(names) < 4:
        return Scorer(temperature=tried[0], words=words)
    rows, own = rows[:CHOOSE_BY], own[:CHOOSE_BY]
    rng, of_names = np.random.default_rng(0), rows @ names.T
    of_words = rows @ words.T if words is not None else None
    told: dict[float, list[float]] = {one: [0.0] for one in tried}
    for _ in range(TURNS):
        half = rng.permutation(len(names))[: len(names) // 2]
        known, negatives = np.isin(own, half), None
        if words is not None and of_words is not None:
            count = negatives_of(len(words), len(half))
            negatives = of_words[:, far_from(names[half], words, count=count)]
        for one in tried if 0 < known.sum() < len(own) else ():
            some = of_names[:, half]
            odds = mcm_odds(some, one) if negatives is None else neglabel_odds(some, negatives, one)
            told[one].append(auroc(odds[known], odds[~known]))
    # Of equals the first.
    return Scorer(temperature=max(tried, key=lambda one: np.mean(told[one])), words=words)


def auroc(known: NDArray[np.float64], unknown: NDArray[np.float64]) -> float:
    """Return how often a known image's score is the higher one, ties counting half."""
    below = np.searchsorted(np.sort(unknown), known, side="left").sum()
    not_above = np.searchsorted(np.sort(unknown), known, side="right").sum()
    return float(below + not_above) / 2 / (len(known) * len(unknown))


def least_odds(thresholds: Sequence[Threshold], names: int) -> float:
    """Return the threshold for so many names: between two that were set, by the logarithm of the number."""
    at = np.log([one.names for one in thresholds])
    return float(np.interp(np.log(names), at, [one.least for one in thresholds]))


def thresholds_of(
    scorer: Scorer, rows: Rows, own: NDArray[np.int64], names: Rows, *, asked: int
) -> tuple[Threshold, ...]:
    """Return what 95% of ID images [N, D] reach, by how many names are asked for.

    ``own`` [N] says which of all ``names`` [C, D] an image is of; the first ``asked`` are the ID classes. Of
    fewer names each image is scored with those of random groups that its own is in, of more with other
    classes beside.
    """
    thresholds = []
    for count in _counts(asked, len(names), least=1 if scorer.words is not None else 2):
        odds = [
            scorer.odds(rows[of_group], names[group])
            for group, of_group in _groups(own, count=count, asked=asked)
            if of_group.any()
        ]
        least = float(np.quantile(np.concatenate(odds), 1 - ACCEPTED))
        thresholds.append(Threshold(names=count, least=least))
    return tuple(thresholds)


def _counts(asked: int, names: int, *, least: int) -> list[int]:
    """Return the numbers of names that a threshold is set for: 1, 2, 5, 10, ..., the ID classes, all."""
    steps = (digit * 10**power for power in range(7) for digit in (1, 2, 5))
    return sorted({asked, names, *(step for step in steps if least <= step < names)} - {*range(least)})


def _groups(
    own: NDArray[np.int64], *, count: int, asked: int
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.bool_]]]:
    """Yield groups of ``count`` names, and which images are scored with them: each with a few groups."""
    if count >= asked:
        yield np.arange(count), np.ones(len(own), dtype=bool)
        return
    rng = np.random.default_rng(0)
    for _ in range(GROUPINGS):
        order = rng.permutation(asked)
        for start in range(0, asked, count):
            members = order[start : start + count]
            # The last group is filled with names of the first.
            yield np.concatenate([members, order])[:count], np.isin(own, members)
