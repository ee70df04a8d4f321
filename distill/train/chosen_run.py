"""What a run is to be: its cache, recipe and settings, where some are left to the program."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.config import RunConfig
from distill.settings import with_settings
from distill.student.own_code import with_code
from distill.train.default_recipe import config_of, default_recipe, default_settings
from distill.train.resumed_settings import begun_with


@dataclass(frozen=True, kw_only=True)
class ChosenRun:
    """A run that can begin: all its settings, and how these were come by.

    ``recipe`` is '' of a run that goes on with its own settings; ``notes`` say what nobody asked for.
    """

    cache: Path
    config: RunConfig
    recipe: str
    code: Path | None
    notes: tuple[str, ...] = ()

    def trained(self, out: Path, **how: Any) -> dict[str, Any]:
        """Train it into ``out``, return its summary; ``how`` as :func:`distill.train.start.train` has it."""
        from distill.train.start import train  # here, because it imports torch, which takes seconds

        return train(self.config, cache_dir=self.cache, code=self.code, out=out, notes=self.notes, **how)


def chosen_run(
    cache: Path,
    out: Path | None,
    *,
    recipe: str | None = None,
    settings: Sequence[str] = (),
    data_dir: Any = (),
    code: Path | None = None,
    resume_run: bool = False,
) -> ChosenRun:
    """Choose what is left open: the recipe by the cache and by where the student starts.

    ``settings`` are ``section.key=value`` lines. With ``resume_run`` and no recipe they are those that the
    run in ``out`` was begun with, and these on them.

    Raises
    ------
    UserError
        If there is no such recipe or setting, or what is given does not go together.
    """
    if resume_run and recipe is None and out is not None:
        config, code = with_code(with_settings(begun_with(out), settings), code, settings)
        return ChosenRun(cache=cache, config=config, recipe="", code=code)
    taken = recipe or default_recipe(cache, settings, from_tars=not data_dir)
    fitted = () if recipe else default_settings(cache, settings)
    config = config_of(taken, (*fitted, *settings), named=recipe is not None)
    config, code = with_code(config, code, settings)
    why = "" if recipe else ", ".join((", as none is named", *fitted))
    note = f"recipe {taken}{why}; start {config.student.start}"
    return ChosenRun(cache=cache, config=config, recipe=taken, code=code, notes=(note,))
