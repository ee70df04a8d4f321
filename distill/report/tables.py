"""The tables of a report: plain cells of text, with the number that a column is sorted by."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from distill.report.collect import Run
from distill.report.groups import (
    Group,
    differing,
    judged_alike,
    judged_splits,
    split_label,
    teacher_of,
    teachers_of,
    value_of,
    written,
)
from distill.report.statistics import Spread, best_of, spread

LOWER_IS_BETTER = ("vlalign",)
# A number of the epoch that was best on a test split is no result: nothing chose that epoch.
CHOSEN_ON_TEST = "_best_epoch"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Text, the number it is sorted by (None: last), and whether it is the best of its column."""

    text: str
    value: float | None = None
    best: bool = False


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of a table; ``style`` is its group's number, None for the teacher's, -1 for no mark."""

    head: str
    cells: tuple[Cell, ...]
    style: int | None = -1


@dataclass(frozen=True, kw_only=True)
class Table:
    """Rows under named columns; the first column is the rows' head."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...] = field(default_factory=tuple)
    note: str = ""


def cell(value: float | None, digits: int = 1, *, std: float | None = None, best: bool = False) -> Cell:
    """Return a number's cell, with its deviation; an empty one for None."""
    if value is None:
        return Cell(text="")
    around = "" if std is None else f" ± {std:,.{digits}f}"
    return Cell(text=f"{value:,.{digits}f}{around}", value=value, best=best)


def _spread_cell(found: Spread | None, digits: int = 1, *, best: bool = False) -> Cell:
    return cell(None) if found is None else cell(found.mean, digits, std=found.std, best=best)


def main_table(
    groups: Sequence[Group], columns: Sequence[str], measure: str, *, splits: Sequence[str]
) -> Table:
    """Return the results, a row a group and one for the teacher: n, every split, the gaps to the teacher."""
    gaps = [split for split in splits if measure == "accuracy" and any(g.gap(split) for g in groups)]
    heads = ["setting", "n", *(f"{split_label(split)} (%)" for split in splits)]
    heads += [*(f"{split_label(split)}: gap to teacher (points)" for split in gaps), *columns]
    best = {split: best_of([g.numbers(f"{split}_{measure}") for g in groups]) for split in splits}
    if not judged_alike(groups):  # results of other test images are better or worse than none
        best = dict.fromkeys(best)
    rows = [
        Row(
            head=group.label,
            style=group.number,
            cells=(
                Cell(text=str(len(group.runs)), value=len(group.runs)),
                *(
                    _spread_cell(group.spread(f"{split}_{measure}"), best=best[split] == i)
                    for split in splits
                ),
                *(_spread_cell(group.gap(split)) for split in gaps),
                *(_setting_cell(group.values[name]) for name in columns),
            ),
        )
        for i, group in enumerate(groups)
    ]
    for teacher in teachers_of(groups) if gaps else ():
        found = [_teacher_cell([teacher_of(run, split) for run in teacher.runs]) for split in splits]
        blank = [Cell(text="")] * (len(gaps) + len(columns))
        rows.append(Row(head=teacher.label, style=None, cells=(Cell(text=""), *found, *blank)))
    return Table(title="Results", columns=tuple(heads), rows=tuple(rows))


def _teacher_cell(values: Sequence[float | None]) -> Cell:
    """Return a teacher's number: of all its runs the same, unless its texts were learnt anew in each."""
    return _spread_cell(spread(sorted({value for value in values if value is not None})))


def _setting_cell(value: Any) -> Cell:
    number = float(value) if isinstance(value, int | float) else None
    return Cell(text=written(value), value=number)


def per_class_tables(groups: Sequence[Group]) -> list[Table]:
    """Return every class's accuracy by split, OOD first: images, the teacher's, then every group's mean."""
    runs = [run for group in groups for run in group.runs]
    splits = dict.fromkeys(s for run in runs for s in _dict(run.summary, "per_class_accuracy"))
    tables, teachers = [], teachers_of(groups)
    for split in sorted((s for s in splits if not s.startswith("id_val")), key=lambda s: s[:2] != "oo"):
        names = dict.fromkeys(n for r in runs for n in _dict(r.summary, "per_class_accuracy", split))
        images = _images_of_classes(runs, split)
        rows = []
        for name in names:
            found = [_class_values(group.runs, "per_class_accuracy", split, name) for group in groups]
            rows.append(
                Row(
                    head=name,
                    cells=(
                        images.get(name, cell(None)),
                        *(
                            _teacher_cell(_class_values(t.runs, "teacher_per_class_accuracy", split, name))
                            for t in teachers
                        ),
                        *(_spread_cell(spread(values)) for values in found),
                    ),
                )
            )
        labels = [*(teacher.label for teacher in teachers), *(group.label for group in groups)]
        heads = ("class", "images", *(f"{label} (%)" for label in labels))
        tables.append(Table(title=split_label(split), columns=heads, rows=tuple(rows)))
    return tables


def _class_values(runs: Iterable[Run], key: str, split: str, name: str) -> list[float]:
    found = [_dict(run.summary, key, split).get(name) for run in runs]
    return [value for value in found if value is not None]


def _images_of_classes(runs: Sequence[Run], split: str) -> dict[str, Cell]:
    """Return how many images of every class were judged; all numbers where runs were judged on others."""
    found: dict[str, dict[int, None]] = {}
    for run in runs:
        answers = run.outputs.answers.get(split.partition("@")[0]) if run.outputs else None
        if answers is not None:
            labels = answers.labels.tolist()
            for i, name in enumerate(answers.class_names):
                found.setdefault(name, {})[labels.count(i)] = None
    return {
        name: Cell(text=" or ".join(f"{n:,}" for n in counts), value=min(counts))
        for name, counts in found.items()
    }


def space_tables(groups: Sequence[Group]) -> list[Table]:
    """Return the space metrics by split, a row a group."""
    runs = [run for group in groups for run in group.runs]
    tables = []
    for split in dict.fromkeys(s for run in runs for s in _dict(run.summary, "space")):
        names = dict.fromkeys(n for r in runs for n in _dict(r.summary, "space", split) if n != "images")
        rows = []
        for group in groups:
            found = [spread(_space_values(group, split, name)) for name in names]
            if any(found):
                cells = tuple(_spread_cell(f, 3) for f in found)
                rows.append(Row(head=group.label, style=group.number, cells=cells))
        heads = (f"{name} {'↓' if name in LOWER_IS_BETTER else '↑'}" for name in names)
        images = {n for r in runs if (n := _dict(r.summary, "space", split).get("images")) is not None}
        tables.append(
            Table(
                title=split_label(split),
                columns=("setting", *heads),
                rows=tuple(rows),
                note=f"{' or '.join(f'{n:,}' for n in sorted(images))} images",
            )
        )
    return tables


def _space_values(group: Group, split: str, name: str) -> list[float]:
    found = [_dict(run.summary, "space", split).get(name) for run in group.runs]
    return [value for value in found if value is not None]


COST = (
    ("time (s)", 0, lambda s: s.get("seconds")),
    ("images/s", 0, lambda s: s.get("images_per_s")),
    ("peak memory, host (GB)", 2, lambda s: _gigabytes(_dict(s, "peak_memory_bytes").get("host"))),
    ("peak memory, device (GB)", 2, lambda s: _gigabytes(_dict(s, "peak_memory_bytes").get("device"))),
    ("parameters (million)", 2, lambda s: _millions(s.get("student_parameters"))),
)


def cost_table(groups: Sequence[Group]) -> Table:
    """Return what a run of every group took, means over its seeds."""
    rows = []
    for group in groups:
        found = [
            spread([value for run in group.runs if (value := read(run.summary)) is not None])
            for _, _, read in COST
        ]
        cells = tuple(_spread_cell(f, digits) for f, (_, digits, _) in zip(found, COST, strict=True))
        rows.append(Row(head=group.label, style=group.number, cells=cells))
    used = [i for i in range(len(COST)) if any(row.cells[i].text for row in rows)]
    return Table(
        title="Cost of a run",
        columns=("setting", *(COST[i][0] for i in used)),
        rows=tuple(
            Row(head=row.head, style=row.style, cells=tuple(row.cells[i] for i in used)) for row in rows
        ),
    )


def _gigabytes(value: float | None) -> float | None:
    return None if value is None else value / 1e9


def _millions(value: float | None) -> float | None:
    return None if value is None else value / 1e6


def _dict(value: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a dict within dicts, empty where there is none."""
    for name in names:
        found = value.get(name)
        value = found if isinstance(found, dict) else {}
    return value


def as_markdown(question: str, table: Table, note: str) -> str:
    """Return the main table as Markdown; the best of a column is bold."""
    lines = [f"# {plain(question)}", "", _md_row(table.columns), _md_row(["---"] * len(table.columns))]
    for row in table.rows:
        marked = (f"**{plain(c.text)}**" if c.best else plain(c.text) for c in row.cells)
        lines.append(_md_row([plain(row.head), *marked]))
    return "\n".join([*lines, "", note, ""])


def _md_row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def plain(text: str) -> str:
    """Return text that neither ends a Markdown cell nor is read as HTML."""
    return " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")


def as_csv(runs: Sequence[Run], measure: str) -> str:
    """Return one line a finished run: name, seed, every differing setting and every result."""
    columns = differing(runs)
    results = [f"{split}_{measure}" for split in judged_splits(runs, measure)]
    numbers = dict.fromkeys(
        name
        for run in runs
        for name, value in run.summary.items()
        if isinstance(value, int | float) and name not in results and not name.endswith(CHOSEN_ON_TEST)
    )
    splits = dict.fromkeys(split for run in runs for split in _dict(run.summary, "teacher_accuracy"))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(
        ["run", "seed", *columns, *results, *numbers, *(f"teacher_{split}_accuracy" for split in splits)]
    )
    for run in runs:
        settings = [written(value_of(run, name)) for name in columns]
        found = [run.summary.get(name, "") for name in [*results, *numbers]]
        teacher = [_dict(run.summary, "teacher_accuracy").get(split, "") for split in splits]
        writer.writerow([_no_formula(run.name), run.seed, *map(_no_formula, settings), *found, *teacher])
    return buffer.getvalue()


def _no_formula(text: Any) -> Any:
    """Return a text that a spreadsheet takes for a text, not for a formula."""
    if not isinstance(text, str) or not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
