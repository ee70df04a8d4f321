"""Which settings a run that is resumed may have other than it began with, and where its own are found."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import CacheMismatch, some_of
from distill.checkpoint import read_checkpoint
from distill.config import RunConfig
from distill.record.run_files import CONFIG, LAST
from distill.settings import differences, from_toml

if TYPE_CHECKING:
    import torch

# What changes no number of a run beyond rounding: where and how fast it is computed, how often it is saved
# and judged. train.precision is compared as what it is on the device, data.replay_views as those that are
# replayed.
FREE = {
    *(f"data.{name}" for name in ("workers", "memory_mb", "device_images", "replay_views")),
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

    More epochs are allowed where nothing is spread over the run: to the schedule ``constant``, no warm-up.
    """
    begun = from_toml(state["config"], where=str(where))
    changed = {name: line for name, line in differences(begun, config).items() if name not in FREE}
    then, now = state["precision"], precision_name(dtype)
    if then != now:
        changed["train.precision"] = f"train.precision: {then} -> {now}"
    longer, ends = config.train.epochs > begun.train.epochs, _bound_to_epochs(begun, config.train.epochs)
    if longer and not ends:
        changed.pop("train.epochs")
    elif longer and [*changed] == ["train.epochs"]:
        raise CacheMismatch(
            f"{where} is of a run of {begun.train.epochs} epochs, {ends}",
            fix=f"begin another run, from these weights with --start {where}.",
        )
    if changed:
        raise CacheMismatch(
            f"{where} was trained with other settings ({some_of([*changed.values()], 5)})",
            fix="resume without what changes them, --resume alone has the run's own; or begin another with "
            f"--recipe {where.parent / CONFIG} and a new --out.",
        )


def _bound_to_epochs(begun: RunConfig, wanted: int) -> str:
    """Return why a run cannot go on to ``wanted`` epochs, '' where nothing is spread over its own."""
    if begun.train.head_only == "closed-form":
        return "of which train.head_only=closed-form takes none: its head is done"
    for name, spreads in (
        ("train.head_only", begun.train.head_only != "off"),
        ("optim.schedule", begun.optim.schedule != "constant"),
        ("optim.warmup", begun.optim.warmup > 0),
    ):
        if spreads:
            section, _, field = name.partition(".")
            value = getattr(getattr(begun, section), field)
            return f"over which {name}={value} spreads its rates: {wanted} have others from the start"
    return ""


def precision_name(dtype: torch.dtype | None) -> str:
    """Return what ``train.precision`` calls what a student computes in."""
    return str(dtype or "torch.float32").removeprefix("torch.")
