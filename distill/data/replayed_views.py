"""Whether a run replays the views of its cache, by what its journal lists: no torch, no file opened."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from distill.config import RunConfig

if TYPE_CHECKING:
    from cache.store.crop_views import CropViewsSettings

COLUMN = "crop_views"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replayed:
    """The views that a run replays, None for none; ``why_not`` says why, where its cache has some."""

    settings: CropViewsSettings | None = None
    why_not: str = ""

    @property
    def words(self) -> str:
        """What is replayed, in words; '' for nothing."""
        return self.settings.words if self.settings is not None else ""

    @property
    def note(self) -> str:
        """One line about the views of the cache; '' where it has none, or the run does without."""
        if self.settings is not None:
            return f"views: {self.words} an image are replayed, each with the teacher's row of it"
        return f"the cache's views are not replayed: {self.why_not}" if self.why_not else ""


def has_views(cache: EmbeddingCache) -> bool:
    """Say whether a cache keeps views, by any of its teachers."""
    return any(cache.teacher_cache(name).column_settings(COLUMN) for name in cache.teacher_names)


def takes_views(config: RunConfig) -> bool:
    """Say whether a run of this config replays views where its cache has them, as far as it says."""
    return (
        config.data.replay_views != "off" and not config.train.closed_set and config.train.head_only == "off"
    )


def replayed_views(cache: EmbeddingCache, config: RunConfig, splits: Sequence[str]) -> Replayed:
    """Return which views of the images of these splits a run replays.

    UserError where it is to, and cannot: an image, or a teacher's row of it, has none; CacheMismatch where
    the views of its teachers are not the same.
    """
    data = config.data
    of_teachers = {name: cache.teacher_cache(name) for name in config.teachers}
    kept = any(own.column_settings(COLUMN) is not None for own in of_teachers.values())
    if not takes_views(config) or cache.holds_episodes or not (kept or data.replay_views == "on"):
        return Replayed()
    if not data.crops_each:
        policy = f"data.policy={data.policy}, data.per_image={str(data.per_image).lower()}"
        return Replayed(why_not=f"the recipe has {policy}")
    try:
        return Replayed(settings=_the_same(of_teachers, splits))
    except UserError as error:
        if data.replay_views == "on":
            raise
        return Replayed(why_not=f"{error.problem}; {error.fix}")


def _the_same(of_teachers: dict[str, EmbeddingCache], splits: Sequence[str]) -> CropViewsSettings:
    """Return the settings of every teacher's views, which differ in the teacher alone."""
    made = {
        name: [cache.crop_views_settings(split) for split in splits] for name, cache in of_teachers.items()
    }
    (first, (one, *_)), *others = made.items()
    for name, (settings, *_) in others:
        if settings.drawn != one.drawn:
            raise CacheMismatch(
                f"the views by the teacher {name} are {settings.words}, those by {first} are {one.words}",
                fix=f"make the same: the same cache-features command with {one.command} --teacher {name}.",
            )
    return one
