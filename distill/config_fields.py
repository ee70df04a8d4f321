"""Fields of frozen configs that know what values they take, and what is said of another."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import field, fields
from typing import Any

from cache.runtime.errors import UserError, nearest_names


def require(condition: bool, problem: str, fix: str) -> None:
    """Raise a UserError unless ``condition``."""
    if not condition:
        raise UserError(problem, fix=fix)


def require_choice(name: str, value: str, choices: Sequence[str]) -> None:
    """Raise a UserError with the nearest choice unless ``value`` is one of them."""
    require(
        value in choices,
        f"{name} is {value!r}",
        f"{nearest_names(value, choices)}choose from {', '.join(choices)}.",
    )


def accepted(default: Any, accepts: Callable[[Any], bool], fix: str, *, most: float = math.inf) -> Any:
    """Return a field for a number that ``accepts`` holds of; ``most`` is what a machine may be asked for."""
    return field(default=default, metadata={"accepts": accepts, "fix": fix, "most": most})


def at_least(least: int, default: float, *, fix: str = "", most: float = math.inf) -> Any:
    """Return a field for a number of at least ``least``; see :func:`accepted`."""
    return accepted(default, lambda value: value >= least, fix or f"give at least {least}.", most=most)


def one_of(default: str, *others: str) -> Any:
    """Return a field for one of some words."""
    return field(default=default, metadata={"choices": (default, *others)})


def check_fields(section: str, config: Any) -> None:
    """Raise a UserError for the first field of a config whose value is not one that the field is for."""
    for one in fields(config):
        name, value, bounds = f"{section}.{one.name}", getattr(config, one.name), one.metadata
        if "choices" in bounds:
            require_choice(name, value, bounds["choices"])
        if "accepts" in bounds:
            require(value != math.inf, f"{name} is {value}", "give a smaller number.")
            require(bounds["accepts"](value), f"{name} is {value}", bounds["fix"])
            if bounds["most"] < math.inf:
                require(value <= bounds["most"], f"{name} is {value:,}", f"give at most {bounds['most']:,}.")
