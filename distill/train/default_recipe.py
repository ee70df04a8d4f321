"""Which recipe a run has where none is named: by what its cache holds, and by where its student starts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.splits import MAIN_TEACHER
from cache.store.spec import WEBDATASET
from distill.config import SCRATCH, RunConfig
from distill.data.pool import has_pool, is_pool_alone
from distill.data.teacher_texts import OF_TEXTS
from distill.settings import load_recipe, parsed_settings, with_settings

EPISODES, FROM_SCRATCH = "robotics_efficientnet_b0", "small"
HEAD_FIRST, WITH_POOL = "head-first", "pool"


def default_recipe(cache_dir: Path, settings: Sequence[str], *, from_tars: bool = False) -> str:
    """Return the recipe of a run that names none: another start alone makes it another for the same cache.

    ``settings`` are those that are given beside it; ``from_tars`` says that a cache of tars is streamed.
    UserError where that cannot begin with a head on features, or the folder is no cache.
    """
    cache = EmbeddingCache.open(cache_dir)
    if cache.holds_episodes:
        return EPISODES
    given = parsed_settings(settings)
    if given.get("student.start") == SCRATCH:
        return FROM_SCRATCH
    if from_tars and cache.spec.format == WEBDATASET:
        raise UserError(
            f"{cache.path} is streamed, and {HEAD_FIRST}, the recipe unless told, begins with all features",
            fix="give the images with --data, or train from scratch as they come: --start scratch.",
        )
    takes_pool = given.get("data.pool_share", -1) != 0
    return WITH_POOL if takes_pool and has_pool(cache) else HEAD_FIRST


def default_settings(cache_dir: Path, settings: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what a recipe that nobody named is changed by for a cache.

    Without a label there is no cls; where no teacher has texts there is nothing that needs some; a head by
    ridge is its own start, and has no mean with it. ``settings`` are those that are given beside it.
    """
    cache = EmbeddingCache.open(cache_dir)
    given = parsed_settings(settings)
    ridge = given.get("train.head_only") == "closed-form" and given.get("student.start") != SCRATCH
    of_head = ("optim.average_with_start=0",) if ridge else ()
    known = [name for name in given.get("teachers", [MAIN_TEACHER]) if name in cache.teacher_names]
    if not cache.holds_episodes and not any(cache.teacher_cache(name).bank_names for name in known):
        return (*(f"loss.{name}=0" for name in OF_TEXTS), *of_head)
    return ("loss.cls=0", *of_head) if is_pool_alone(cache) else of_head


def config_of(recipe: str, settings: Sequence[str], *, named: bool = True) -> RunConfig:
    """Return a recipe with settings; of one that nobody ``named`` an error says so, where it is to blame.

    UserError, WrongOption if there is no such recipe, or a setting is wrong or does not fit it.
    """
    config = load_recipe(recipe)
    if not named:
        try:
            return with_settings(config, settings)
        except UserError as error:
            with_settings(RunConfig(), settings)  # of what is wrong with any recipe it is said as it is
            fix = (
                f"{error.fix.rstrip('.')}, or name another recipe than {recipe}, which is taken unless told: "
            )
            raise type(error)(error.problem, fix=f"{fix}--recipe {FROM_SCRATCH}.") from error
    return with_settings(config, settings)
