"""What a student's pixels are normalised with: the mean and deviation that its weights were trained with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from cache.runtime.errors import UserError

CHANNELS = 3


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """The mean and standard deviation of RGB in 0..1 that a student takes off and divides by."""

    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)

    def __post_init__(self) -> None:
        if len(self.mean) != CHANNELS or not all(math.isfinite(value) for value in self.mean):
            raise ValueError(f"mean is {self.mean}, expected three numbers")
        if len(self.std) != CHANNELS or not all(0 < value < math.inf for value in self.std):
            raise ValueError(f"std is {self.std}, expected three numbers above 0")

    @classmethod
    def of(cls, mean: Any, std: Any, *, where: str) -> Self:
        """Take two sequences or tensors of three numbers; UserError, which begins with ``where``, else."""
        try:
            return cls(mean=_three(mean), std=_three(std))
        except (TypeError, ValueError, RuntimeError) as error:
            raise UserError(
                f"{where} says how its input is normalised, and it is not three numbers each ({error})",
                fix="give mean and std of R, G and B in 0..1.",
            ) from error

    def to_json(self) -> dict[str, list[float]]:
        """Return both as lists."""
        return {"mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Self:
        """Read what :meth:`to_json` gave; UserError, which begins with ``where``, if it is not that."""
        return cls.of(value.get("mean"), value.get("std"), where=where)


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = (float(value) for value in values)
    return first, second, third


IMAGENET = Normalisation()
