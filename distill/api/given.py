"""What the functions of ``import distill`` are given: places, progress, settings."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import Any

from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent, progress_for
from cache.sources.names import lines_of
from distill.settings import toml_value

Place = str | os.PathLike[str]
"""A file or a folder."""
Settings = Mapping[str, Any] | Sequence[str]
"""By name, ``{"train.epochs": 3}``, or as the command line has them, ``["train.epochs=3"]``."""
Bounds = Mapping[str, tuple[float, float | None]]
"""By argument the least and the most that it can be, None: any."""
Watching = bool | Progress
"""Whether lines about the work are written to standard error; or what is told of it instead."""


def watched(progress: Watching, what: str, unit: str = "images") -> AbstractContextManager[Progress]:
    """Return what is told of a piece of work, closed at its end; it says nothing unless asked."""
    if isinstance(progress, bool):
        return closing(progress_for(what, unit) if progress else Silent())
    return nullcontext(progress)


def existing_folder(place: Place, *, what: str) -> Path:
    """Return a folder that is there; UserError else."""
    path = Path(place)
    if not path.is_dir():
        problem = "is a file" if path.exists() else "does not exist"
        raise UserError(f"{path} {problem}", fix=f"give the folder of {what}.")
    return path


def cache_folder(cache: EmbeddingCache | Place) -> Path:
    """Return the folder of a cache, opened or not; UserError where there is none."""
    return cache.path if isinstance(cache, EmbeddingCache) else existing_folder(cache, what="a cache")


def maybe_cache(cache: EmbeddingCache | Place | None) -> Path | None:
    """Return the folder of a cache, None for none; raises as :func:`cache_folder`."""
    return None if cache is None else cache_folder(cache)


def maybe_path(place: Place | None) -> Path | None:
    """Return a path, None for none."""
    return None if place is None else Path(place)


def setting_lines(settings: Settings) -> tuple[str, ...]:
    """Return settings as ``section.key=value`` lines."""
    if not isinstance(settings, Mapping):
        return tuple(settings)
    return tuple(f"{name}={_written(name, value)}" for name, value in settings.items())


def _written(name: str, value: Any) -> str:
    plain = os.fspath(value) if isinstance(value, os.PathLike) else value
    plain = plain.item() if hasattr(plain, "item") else plain  # a number of numpy's
    try:
        return toml_value(list(plain) if isinstance(plain, tuple) else plain)
    except TypeError as error:
        raise UserError(
            f"{name} is a {type(value).__name__}", fix="give a number, a text, a truth value, or a list."
        ) from error


def check_bounds(given: Mapping[str, Any], bounds: Bounds) -> None:
    """Refuse a number below the least or above the most; UserError. None is not given."""
    for name, (least, most) in bounds.items():
        value = given.get(name)
        if value is not None and not (least <= value and (most is None or value <= most)):
            fix = f"give at least {least}." if most is None else f"give a number from {least} to {most:,}."
            raise UserError(f"{name} is {value}", fix=fix)


def names_of(names: Place | Sequence[str]) -> tuple[str, ...]:
    """Return names, or those of a file with one a line; UserError if it is missing or no text."""
    return lines_of(Path(names)) if isinstance(names, str | os.PathLike) else tuple(names)


def listed(one_or_several: Any) -> tuple[Any, ...]:
    """Return what is given as a tuple: one text or path is one, None is none."""
    if one_or_several is None:
        return ()
    if isinstance(one_or_several, (str, os.PathLike)):
        return (one_or_several,)
    return tuple(one_or_several)
