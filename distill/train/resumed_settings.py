"""Which settings a run that is resumed may have other than it began with, and where its own are found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import CacheMismatch
from distill.checkpoint import read_checkpoint
from distill.config import RunConfig
from distill.record.run_files import CONFIG, LAST
from distill.settings import differences, from_toml

# What changes no number of a run beyond rounding: where and how fast it is computed, how often it is saved
# and judged. train.precision is compared as what it is on the device, data.views as those that are replayed.
FREE = {
    *(f"data.{name}" for name in ("workers", "memory_mb", "device_images", "views")),
    *(f"train.{name}" for name in ("device", "precision", "checkpoint_steps", "eval_batch_size")),
    *(f"eval.{name}" for name in ("every", "space_images", "choose")),
}


def begun_with(out: Path) -> RunConfig:
    """Return the settings that the run in a folder was begun with; UserError where they cannot be read."""
    return from_toml(read_text(out / CONFIG), where=str(out / CONFIG))


def cache_of(out: Path) -> Path | None:
    """Return the cache that the run in a folder learns from, None before its first checkpoint."""
    return Path(read_checkpoint(out / LAST)["cache_dir"]) if (out / LAST).is_file() else None


def check_settings(
    state: Mapping[str, Any], config: RunConfig, dtype: torch.dtype | None, *, where: Path
) -> None:
    """Make sure that a run can go on with ``config``, which computes in ``dtype``; CacheMismatch else.

    More epochs are allowed to a schedule that does not end with the run, ``constant``.
    """
    begun = from_toml(state["config"], where=str(where))
    changed = {name: line for name, line in differences(begun, config).items() if name not in FREE}
    then, now = state["precision"], precision_name(dtype)
    if then != now:
        changed["train.precision"] = f"train.precision: {then} -> {now}"
    longer = config.train.epochs > begun.train.epochs
    if longer and begun.optim.schedule == "constant":
        changed.pop("train.epochs")
    elif longer and [*changed] == ["train.epochs"]:
        raise CacheMismatch(
            f"{where} is of a run of {begun.train.epochs} epochs, over which optim.schedule="
            f"{begun.optim.schedule} spreads its rates: {config.train.epochs} have others from the start",
            fix=f"begin another run, from these weights with --start {where}.",
        )
    if changed:
        raise CacheMismatch(
            f"{where} was trained with other settings ({'; '.join(changed.values())})",
            fix="resume with the same settings, or choose another --out.",
        )


def precision_name(dtype: torch.dtype | None) -> str:
    """Return what ``train.precision`` calls what a student computes in."""
    return str(dtype or torch.float32).removeprefix("torch.")
