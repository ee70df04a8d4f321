"""Whether a cache or a run is of photos or of a robot's episodes, and what goes with which."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from distill.commands.options import given_options

PHOTOS, EPISODES = "photos", "episodes"
UNITS = {PHOTOS: "images", EPISODES: "episodes"}
"""What a progress counts."""


def contents_of(cache: Path) -> str:
    """Return :data:`PHOTOS` or :data:`EPISODES`; UserError where the folder is no cache."""
    from cache import EmbeddingCache

    return EPISODES if EmbeddingCache.open(cache).holds_episodes else PHOTOS


def refuse_other(
    ctx: click.Context, contents: str, *, photos: Sequence[str] = (), episodes: Sequence[str] = ()
) -> None:
    """Refuse options that would do nothing: those for ``photos`` where there are episodes, and so about."""
    other, names = (PHOTOS, photos) if contents == EPISODES else (EPISODES, episodes)
    for option in given_options(ctx, *names):
        raise click.UsageError(f"{option} is for {other}, and these are {contents}: leave it out.")
