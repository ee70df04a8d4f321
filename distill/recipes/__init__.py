"""Recipes: TOML files of settings beside this one, and how the command line's flags change them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from cache import EmbeddingCache
from cache.runtime.errors import WrongOption, nearest_names
from distill.config import LOSS_TERMS, RunConfig
from distill.settings import load_recipe, with_settings


def default_recipe(cache_dir: Path) -> str:
    """Return the recipe that a cache's rows are trained with unless told; UserError where it is no cache."""
    return "robotics_efficientnet_b0" if EmbeddingCache.open(cache_dir).holds_episodes else "resnet18"


def run_config(
    *,
    recipe: str,
    arch: str | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    losses: str | None = None,
    k: int | None = None,
    image_size: int | None = None,
    text: str | None = None,
    prompts: str | None = None,
    teachers: str | None = None,
    device_images: str | None = None,
    views: bool | None = None,
    negative_text: str | None = None,
    local: bool | None = None,
    baseline: bool | None = None,
    seed: int | None = None,
    device: str | None = None,
    settings: tuple[str, ...] = (),
) -> RunConfig:
    """Return a recipe with the given flags, then ``settings`` (``section.key=value``), applied.

    Raises
    ------
    UserError
        If the recipe is wrong; a :class:`cache.runtime.errors.WrongOption` if a loss or a setting has no such
        name, or a value is wrong.
    """
    flags = {
        "train.epochs": epochs,
        "train.batch_size": batch_size,
        "train.seed": seed,
        "optim.lr": lr,
        "loss.vlalign_k": k,
        "student.image_size": image_size,
    }
    given = [f"{name}={value}" for name, value in flags.items() if value is not None]
    switches = {"robotics.local": local, "train.baseline": baseline, "data.views": views}
    given += [f"{name}={str(value).lower()}" for name, value in switches.items() if value is not None]
    words = {
        "student.arch": arch,
        "text": text,
        "train.device": device,
        "prompts.learner": prompts,
        "robotics.negative_text": negative_text,
        "data.device_images": device_images,
    }
    given += [f'{name}="{value}"' for name, value in words.items() if value is not None]
    if teachers is not None:
        given.append(f"teachers={json.dumps([name.strip() for name in teachers.split(',')])}")
    if losses is not None:
        given += _loss_settings(losses)
    return with_settings(load_recipe(recipe), [*given, *settings])


def _loss_settings(losses: str) -> Iterator[str]:
    chosen = [name.strip() for name in losses.split(",") if name.strip()]
    for name in chosen:
        if name not in LOSS_TERMS:
            raise WrongOption(
                f"--losses: {name!r} is not a loss",
                fix=f"{nearest_names(name, LOSS_TERMS)}choose from {', '.join(LOSS_TERMS)}.",
            )
    return (f"loss.{name}={float(name in chosen)}" for name in LOSS_TERMS)
