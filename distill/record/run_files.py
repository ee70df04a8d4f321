"""The names of the files that a run's folder holds."""

from __future__ import annotations

from pathlib import Path

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
