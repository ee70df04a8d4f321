"""Mean and deviation of a few numbers: behind every ± of the project. Pure; imports nothing."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean of n numbers; ``std`` is the standard deviation with n - 1, None of one number."""

    n: int
    mean: float
    std: float | None


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and deviation; None of no numbers."""
    if not values:
        return None
    std = statistics.stdev(values) if len(values) > 1 else None
    return Spread(n=len(values), mean=statistics.fmean(values), std=std)


def as_columns(name: str, values: Sequence[float]) -> dict[str, float | None]:
    """Return mean and deviation as a table's ``NAME`` and ``NAME_std``; None for what there is not."""
    of_values = spread(values)
    mean, std = (of_values.mean, of_values.std) if of_values else (None, None)
    return {name: mean, f"{name}_std": std}
