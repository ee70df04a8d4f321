"""What runs have learnt from a few images of every OOD class: ``fewshot.json`` in ``RUN/fewshot-METHOD``."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import read_text
from cache.runtime.errors import UserError
from distill.record.run_files import FEWSHOT
from distill.report.charts import Axis, Chart, Point, Series, draw
from distill.report.tables import Cell, Row, Table
from distill.report.tasks import Part

# Of photos and of episodes: what a table's column is, its heading.
COLUMNS = {
    True: (
        ("before", "OOD, zero-shot (%)"),
        ("ood_query", "OOD, with the support (%)"),
        ("id_test", "ID (%)"),
    ),
    False: (
        ("before_ood_objects", "OOD objects, before (%)"),
        ("after_ood_objects", "OOD objects, with the episodes (%)"),
        ("before_id_objects", "ID objects, before (%)"),
        ("after_id_objects", "ID objects, with the episodes (%)"),
    ),
}
# What is drawn over the shots, and what it was before them.
DRAWN = {
    True: (("ood_query", "before"), ("id_test", "")),
    False: (("after_ood_objects", "before_ood_objects"), ("after_id_objects", "before_id_objects")),
}


@dataclass(frozen=True, kw_only=True)
class Learnt:
    """What one method made of a run: ``lines`` are its table, one a number of shots."""

    label: str
    lines: tuple[dict[str, Any], ...]


def learnt_of(part: Part) -> list[Learnt]:
    """Return every few-shot result in the runs' folders; a file that is none of ours is left out."""
    found = []
    for run in part.runs:
        files = (file for below in ("", "*/") for file in run.path.glob(f"fewshot-*/{below}{FEWSHOT}"))
        for file in sorted(files):
            for method, table in _tables_of(file).items():
                lines = tuple(
                    line
                    for line in table
                    if isinstance(line.get("shots"), int) and isinstance(line.get("draws"), int)
                )
                if lines:
                    found.append(Learnt(label=f"{run.name}, {method:.40}", lines=lines))
    return found


def few_shot_table(part: Part) -> Table | None:
    """Return a row for every run, method and number of shots that is there; None of no such run."""
    of_task = COLUMNS[part.task.confuses]
    rows = [
        Row(
            head=f"{one.label}, {line['shots']}",
            cells=(
                *(_cell(line, name) for name, _ in of_task),
                Cell(text=str(line["draws"]), value=line["draws"]),
            ),
            style=style,
        )
        for style, one in enumerate(learnt_of(part))
        for line in one.lines
    ]
    if not rows:
        return None
    columns = (f"run, method, {_shots(part)}", *(heading for _, heading in of_task), "draws")
    return Table(title="Few-shot", columns=columns, rows=tuple(rows))


def few_shot_charts(part: Part) -> list[Chart]:
    """Return OOD and ID over the number of shots, a line for each run and method; at 0 what was before."""
    charts = []
    called = dict(COLUMNS[part.task.confuses])
    for name, earlier in DRAWN[part.task.confuses]:
        title, series = called[name].removesuffix(" (%)"), []
        for style, one in enumerate(learnt_of(part)):
            points = [
                Point(
                    x=line["shots"],
                    y=mean,
                    spread=_number(line.get(f"{name}_std")),
                    note=f"{line['draws']} draws",
                )
                for line in one.lines
                if (mean := _number(line.get(name))) is not None
            ]
            before = _number(one.lines[0].get(earlier))
            if before is not None and points:
                points.insert(0, Point(x=0, y=before, note="before"))
            if points:
                series.append(Series(label=one.label, points=tuple(points), style=style))
        if series:
            x, y = Axis(name=_shots(part), low=0, whole=True), Axis(name=f"{title} (%)", low=0, high=100)
            charts.append(draw(f"{part.task.name}-few-shot-{name}", title, series, x=x, y=y))
    return charts


def _shots(part: Part) -> str:
    return "shots" if part.task.confuses else "episodes"


def _tables_of(file: Path) -> dict[str, list[dict[str, Any]]]:
    """Return a file's tables by method; one that holds several methods has none of its own."""
    try:
        value = json.loads(read_text(file))
    except (UserError, ValueError, RecursionError):
        return {}
    method, table = (value.get("method"), value.get("table")) if isinstance(value, dict) else ("", [])
    lines = table if isinstance(method, str) and isinstance(table, list) else []
    return {str(method): [line for line in lines if isinstance(line, dict)]} if lines else {}


def _cell(line: dict[str, Any], name: str) -> Cell:
    """Return a mean with its deviation, where there are any."""
    mean, deviation = (_number(line.get(key)) for key in (name, f"{name}_std"))
    if mean is None:
        return Cell()
    return Cell(text=f"{mean:.1f}" + (f" ± {deviation:.1f}" if deviation is not None else ""), value=mean)


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if plain and math.isfinite(value) else None
