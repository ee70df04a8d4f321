"""t-tests of a few seeds. Pure.

The tail of Student's t is the regularised incomplete beta function (mpmath's): P(|T| > t) = I_x(v/2, 1/2)
with x = v / (v + t^2); Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.1.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import mpmath

LEVEL = 0.05


@dataclass(frozen=True, kw_only=True)
class TTest:
    """A two-sided t-test of ``difference``, other less one.

    ``design`` is paired or welch; ``n`` counts the pairs, or the numbers of either side; ``low`` to ``high``
    is the 95% interval of the difference. ``statistic`` and ``p_value`` are None where nothing varies.
    """

    design: str
    n: tuple[int, ...]
    difference: float
    statistic: float | None
    degrees: float
    p_value: float | None
    low: float
    high: float


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


def t_quantile(probability: float, degrees: float) -> float:
    """Return the t that a share ``probability`` (above a half) of Student's distribution lies below."""
    wanted = 2 * (1 - probability)
    high = 1.0
    while two_sided_p(high, degrees) > wanted:
        high *= 2
    root = mpmath.findroot(lambda t: two_sided_p(float(t), degrees) - wanted, (0, high), solver="anderson")
    return float(root)


def best_of(values: Sequence[Sequence[float]]) -> int | None:
    """Return which of several groups of numbers is highest beyond their spread; None where none is.

    The group of the highest mean is it, if it has two numbers or more and differs from *every* other group
    by Welch's test (two-sided, p below 0.05). A group of one number can be neither it nor be told from it.
    """
    there = [i for i, numbers in enumerate(values) if numbers]
    if len(there) < 2 or any(len(values[i]) < 2 for i in there):
        return None
    best = max(there, key=lambda i: statistics.fmean(values[i]))
    for i in there:
        if i != best:
            p = welch_t(values[i], values[best]).p_value
            if p is None or p >= LEVEL:
                return None
    return best
