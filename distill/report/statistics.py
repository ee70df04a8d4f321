"""t-tests of a few seeds. Pure.

The tail of Student's t is the regularised incomplete beta function (mpmath's): P(|T| > t) = I_x(v/2, 1/2)
with x = v / (v + t^2); Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.1.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import mpmath

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class TTest:
    """A two-sided t-test of ``difference``, other less one.

    ``design`` is paired, blocks (paired, see :class:`Pooled`) or welch; ``n`` counts the pairs, or the
    numbers of either side; ``low`` to ``high`` is the 95% interval of the difference. ``statistic`` and
    ``p_value`` are None where nothing varies.
    """

    design: str
    n: tuple[int, ...]
    difference: float
    statistic: float | None
    degrees: float
    p_value: float | None
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """The variance that is left in randomised complete blocks, a block a seed, and its degrees of freedom.

    A difference of two groups over n seeds has the variance 2 / n of it (Fisher; Montgomery, Design and
    Analysis of Experiments, 4.1): of two groups that is the paired test, of more it has more degrees of
    freedom, and takes the groups to vary alike.
    """

    variance: float
    degrees: int


def paired_t(one: Sequence[float], other: Sequence[float]) -> TTest:
    """Test whether other less one differs from 0; the numbers come in pairs.

    Raises
    ------
    ValueError
        If there are fewer than two pairs.
    """
    differences = [b - a for a, b in zip(one, other, strict=True)]
    if len(differences) < 2:
        raise ValueError(f"a paired test takes at least two pairs, got {len(differences)}")
    n = len(differences)
    error = statistics.stdev(differences) / math.sqrt(n)
    return _tested("paired", (n,), statistics.fmean(differences), error, n - 1)


def welch_t(one: Sequence[float], other: Sequence[float]) -> TTest:
    """Test whether two means differ, without assuming one variance (Welch 1947, Biometrika 34).

    Raises
    ------
    ValueError
        If a side has fewer than two numbers.
    """
    if min(len(one), len(other)) < 2:
        raise ValueError(f"Welch's test takes two numbers a side, got {len(one)} and {len(other)}")
    parts = [statistics.variance(side) / len(side) for side in (one, other)]
    error = math.sqrt(sum(parts))
    below = sum(p**2 / (len(side) - 1) for p, side in zip(parts, (one, other), strict=True))
    degrees = sum(parts) ** 2 / below if below else len(one) + len(other) - 2
    mean = statistics.fmean(other) - statistics.fmean(one)
    return _tested("welch", (len(one), len(other)), mean, error, degrees)


def _tested(design: str, n: tuple[int, ...], mean: float, error: float, degrees: float) -> TTest:
    statistic = mean / error if error else None
    reach = t_quantile(1 - LEVEL / 2, degrees) * error
    return TTest(
        design=design,
        n=n,
        difference=mean,
        statistic=statistic,
        degrees=degrees,
        p_value=two_sided_p(statistic, degrees) if statistic is not None else None,
        low=mean - reach,
        high=mean + reach,
    )


def two_sided_p(statistic: float, degrees: float) -> float:
    """Return P(|T| > ``statistic``) of Student's t with ``degrees`` of freedom."""
    x = degrees / (degrees + statistic**2)
    return float(mpmath.betainc(degrees / 2, 0.5, 0, x, regularized=True))


@lru_cache(maxsize=1024)
def t_quantile(probability: float, degrees: float) -> float:
    """Return the t that a share ``probability`` (above a half) of Student's distribution lies below."""
    wanted = 2 * (1 - probability)
    high = 1.0
    while two_sided_p(high, degrees) > wanted:
        high *= 2
    root = mpmath.findroot(lambda t: two_sided_p(float(t), degrees) - wanted, (0, high), solver="anderson")
    return float(root)


def pooled(sides: Sequence[Mapping[Any, float]]) -> Pooled | None:
    """Return what several groups of numbers by seed vary by, when group and seed are taken out.

    None unless three groups or more have the same seeds, two or more.
    """
    seeds = list(sides[0]) if sides else []
    if len(sides) < 3 or len(seeds) < 2 or any(set(side) != set(seeds) for side in sides):
        return None
    of_side = [statistics.fmean(side.values()) for side in sides]
    of_seed = [statistics.fmean(side[seed] for side in sides) for seed in seeds]
    whole = statistics.fmean(of_side)
    squares = (
        (side[seed] - mean - block + whole) ** 2
        for side, mean in zip(sides, of_side, strict=True)
        for seed, block in zip(seeds, of_seed, strict=True)
    )
    degrees = (len(sides) - 1) * (len(seeds) - 1)
    return Pooled(variance=math.fsum(squares) / degrees, degrees=degrees)


def t_test(
    one: Mapping[Any, float], other: Mapping[Any, float], within: Pooled | None = None
) -> TTest | None:
    """Test whether numbers by seed differ, other less one.

    ``within`` is :func:`pooled` of all groups that are compared, both among them. Without it seeds are paired
    where two or more are common, else it is Welch's test; None where a side has one number.
    """
    common = [seed for seed in one if seed in other]
    if within is not None:
        mean = statistics.fmean(other[seed] - one[seed] for seed in common)
        error = math.sqrt(2 * within.variance / len(common))
        return _tested("blocks", (len(common),), mean, error, within.degrees)
    if len(common) > 1:
        return paired_t([one[seed] for seed in common], [other[seed] for seed in common])
    if min(len(one), len(other)) < 2:
        return None
    return welch_t([*one.values()], [*other.values()])


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Return p-values adjusted for how many there are (Holm 1979, Scand. J. Statist. 6); None stays None.

    Each is the largest of p times the number of those not below it, over itself and all below it.
    """
    there = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    highest = 0.0
    for rank, (p, i) in enumerate(there):
        highest = max(highest, min(1.0, p * (len(there) - rank)))
        adjusted[i] = highest
    return adjusted


def alike_best(values: Sequence[Mapping[Any, float]], *, lower: bool = False) -> tuple[int, frozenset[int]]:
    """Return which of several groups of numbers by seed is best, and all that cannot be told from it.

    Best is the highest mean, or the lowest. Another is told from it by :func:`t_test`, two-sided, with Holm's
    adjustment over the others, p below 0.05. A group of one number cannot be told from any, nor can any where
    nothing varies. -1 and none, where the best has one number, or there is no other.
    """
    there = [i for i, numbers in enumerate(values) if numbers]
    sign = -1 if lower else 1
    best = max(there, key=lambda i: sign * statistics.fmean(values[i].values()), default=-1)
    if len(there) < 2 or len(values[best]) < 2:
        return -1, frozenset()
    others = [i for i in there if i != best]
    within = pooled([values[i] for i in there])
    tests = [t_test(values[i], values[best], within) for i in others]
    adjusted = holm([test.p_value if test else None for test in tests])
    alike = (i for i, p in zip(others, adjusted, strict=True) if p is None or p >= LEVEL)
    return best, frozenset(alike)
