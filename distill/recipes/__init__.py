"""Recipes: TOML files of settings beside this one."""

from __future__ import annotations

from pathlib import Path

from cache import EmbeddingCache


def default_recipe(cache_dir: Path) -> str:
    """Return the recipe that a cache's rows are trained with unless told; UserError where it is no cache."""
    return "robotics_efficientnet_b0" if EmbeddingCache.open(cache_dir).holds_episodes else "resnet18"
