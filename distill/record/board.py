"""A board, where people watch runs, and what all of them write."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from cache.runtime.atomic_files import replacing
from distill.record.run_files import SWEEP


class Board(Protocol):
    """Where people watch runs."""

    def write(self, line: Mapping[str, Any]) -> None:
        """Write one epoch."""

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write what there is to say of a trained student, once, at the run's end."""

    def close(self) -> None:
        """Close what is open."""


def kept_id(path: Path) -> str:
    """Return the id that a run's folder keeps of its run on a board; '' where it has none yet."""
    return path.read_text(encoding="utf-8").strip() if path.is_file() else ""


def keep_id(path: Path, board_id: str) -> None:
    """Keep the id of a run that has begun on a board: a resumed run goes on in it."""
    with replacing(path) as temporary:
        temporary.write_text(board_id, encoding="utf-8")


def sweep_of(folder: Path) -> str:
    """Return the name of the sweep that a run's folder is of; '' for none."""
    above = folder.resolve().parent
    return above.name if (above / SWEEP).is_file() else ""


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """Return an epoch's numbers, parts of the loss as ``loss/NAME``."""
    return {
        name.replace("loss_", "loss/", 1): value
        for name, value in line.items()
        if isinstance(value, int | float)
    }


def columns_of(summary: Mapping[str, Any]) -> dict[str, int | float | str]:
    """Return a summary's numbers and words, those of its tables as ``TABLE/NAME``, and its space metrics.

    What there is of every class or image stays in summary.json: boards make each number a column.
    """
    tables = {name: table for name, table in summary.items() if isinstance(table, Mapping)}
    below = {f"{name}/{key}": value for name, table in tables.items() for key, value in table.items()}
    columns = {
        name: value for name, value in {**summary, **below}.items() if isinstance(value, int | float | str)
    }
    return {**columns, **space_metrics(summary)}


def space_metrics(summary: Mapping[str, Any]) -> dict[str, float]:
    """Return a summary's space metrics as ``space/SPLIT/METRIC``; empty where there are none."""
    return {
        f"space/{split}/{name}": value
        for split, metrics in summary.get("space", {}).items()
        for name, value in metrics.items()
    }
