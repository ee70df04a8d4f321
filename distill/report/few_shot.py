"""What runs have learnt from a few images of every OOD class: ``fewshot.json`` in ``RUN/fewshot-METHOD``."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError
from distill.record.run_files import FEWSHOT
from distill.report.collect import Run
from distill.report.tables import Cell, Row, Table
from distill.report.tasks import Part

COLUMNS = (
    ("before", "OOD, zero-shot (%)"),
    ("ood_query", "OOD, with the support (%)"),
    ("id_test", "ID (%)"),
)


def few_shot_table(part: Part) -> Table | None:
    """Return a row for every run, method and number of shots that is there; None of no such run.

    A file that is none of ours is left out.
    """
    rows = [row for run in part.runs for row in _rows(run)]
    if not rows:
        return None
    columns = ("run, method, shots", *(heading for _, heading in COLUMNS), "draws")
    return Table(title="Few-shot", columns=columns, rows=tuple(rows))


def _rows(run: Run) -> Iterator[Row]:
    for file in sorted(run.path.glob(f"fewshot-*/{FEWSHOT}")):
        method, table = _table_of(file)
        for line in table:
            shots, draws = line.get("shots"), line.get("draws")
            if isinstance(shots, int) and isinstance(draws, int):
                cells = [_cell(line, name) for name, _ in COLUMNS]
                head = f"{run.name}, {method:.40}, {shots}"
                yield Row(head=head, cells=(*cells, Cell(text=str(draws), value=draws)))


def _table_of(file: Path) -> tuple[str, list[dict[str, Any]]]:
    try:
        value = json.loads(read_text(file))
    except (UserError, ValueError, RecursionError):
        return "", []
    method, table = (value.get("method"), value.get("table")) if isinstance(value, dict) else ("", [])
    lines = table if isinstance(method, str) and isinstance(table, list) else []
    return str(method), [line for line in lines if isinstance(line, dict)]


def _cell(line: dict[str, Any], name: str) -> Cell:
    """Return a mean with its deviation, where there are any."""
    mean, deviation = (_number(line.get(key)) for key in (name, f"{name}_std"))
    if mean is None:
        return Cell()
    return Cell(text=f"{mean:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else ""), value=mean)


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None
