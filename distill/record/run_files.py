"""The files that a run's folder holds, by name, and whether it may be one."""

from __future__ import annotations

from pathlib import Path

from cache.runtime.atomic_files import is_leftover
from cache.runtime.errors import UserError, nearest_names

LAST, BEST = "last.pt", "best.pt"
# Means of the weights, as their results begin and their files are called.
EMA, AVERAGED, MEAN_HEAD = "ema", "averaged", "mean_head"
MEANS = (EMA, AVERAGED, MEAN_HEAD)
CHECKPOINTS = ("last", "best", *MEANS)
CONFIG, SUMMARY = "config.toml", "summary.json"
METRICS, CSV, CURVES = "metrics.jsonl", "metrics.csv", "curves.png"
OUTPUTS, LOGITS = "outputs.npz", "logits.npz"
FEWSHOT, FEWSHOT_PLOT = "fewshot.json", "fewshot.png"
# Beside the runs of a sweep: what it planned.
SWEEP = "sweep.json"


def checkpoint_file(run: Path, checkpoint: str) -> Path:
    """Return a run's checkpoint ``last``, ``best``, or that of a mean; UserError for another name."""
    if checkpoint not in CHECKPOINTS:
        raise UserError(
            f"no checkpoint is called {checkpoint!r}",
            fix=f"{nearest_names(checkpoint, CHECKPOINTS)}choose from {', '.join(CHECKPOINTS)}.",
        )
    return run / f"{checkpoint}.pt"


def check_out(out: Path, *, resume_run: bool) -> None:
    """Make sure that ``out`` is new, or with ``resume_run`` a run; UserError else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", fix="choose a new folder for --out.")
    # What a process that was killed in its first moments left is no file of anybody's.
    files = [path for path in out.iterdir() if not is_leftover(path)] if out.is_dir() else []
    if files and not resume_run:
        raise UserError(f"{out} is not empty", fix="choose a new folder, or continue that run with --resume.")
    if resume_run and not (out / CONFIG).is_file():
        raise UserError(f"{out} holds no run to resume", fix="leave --resume out, or give the run's folder.")
