"""Accuracy over shots, as a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.record.drawing import drawing

Line = tuple[Sequence[dict[str, Any]], str, str, str, str]
"""A curve: a table and which column of it, its label, colour and style."""
# What a plot shows of a table, where that has it: column, label, colour, style.
CURVES = (
    ("ood_query", "with the support", "C0", "-"),
    ("before", "zero-shot", "C1", "--"),
    ("id_test", "ID test", "C2", "-"),
    ("before_id_objects", "ID objects, before", "C0", "--"),
    ("after_id_objects", "ID objects, with the episodes", "C0", "-"),
    ("before_ood_objects", "OOD objects, before", "C1", "--"),
    ("after_ood_objects", "OOD objects, with the episodes", "C1", "-"),
)


def draw_shots(path: Path, table: Sequence[dict[str, Any]], *, of: str, title: str) -> None:
    """Draw the columns of a table over shots, with the deviation over draws, as a PNG; ``of`` names them."""
    _draw(path, [(table, *curve) for curve in CURVES], of=of, title=title)


def draw_methods(path: Path, tables: Mapping[str, Sequence[dict[str, Any]]], *, of: str, title: str) -> None:
    """Draw the OOD images of every method's table over shots, and zero-shot, as a PNG."""
    first = next(iter(tables.values()))
    lines: list[Line] = [(first, "before", "zero-shot", "C1", "--")]
    colours = ("C0", "C2", "C3")
    lines += [(table, "ood_query", name, colours[i], "-") for i, (name, table) in enumerate(tables.items())]
    _draw(path, lines, of=of, title=title)


def _draw(path: Path, lines: Sequence[Line], *, of: str, title: str) -> None:
    with drawing(path, (6, 4.2)) as (_, axes):
        shots = [row["shots"] for row in lines[0][0]]
        for table, name, label, colour, style in lines:
            values = [row.get(name) for row in table]
            if None not in values:
                spread = [row[f"{name}_std"] or 0.0 for row in table]
                look: dict[str, Any] = {"color": colour, "linestyle": style, "marker": "o", "capsize": 3}
                axes.errorbar(shots, values, yerr=spread, label=label, **look)
        axes.set(xlabel="shots", ylabel=f"{of} (%)", title=title)
        axes.set_xscale("log", base=2)
        axes.set_xticks(shots, [str(number) for number in shots])
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
