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
    teacher_number,
    teachers_of,
    value_of,
    written,
)
from distill.report.statistics import best_of
from distill.spread import Spread, spread

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
    """Return the results, a row a group and one for the teacher.

    n, every split among its own classes and among all, the harmonic mean of the latter, the gaps to the
    teacher, the settings that differ.
    """
    gaps = [split for split in splits if measure == "accuracy" and any(g.gap(split) for g in groups)]
    results = {f"{split}_{measure}": f"{split_label(split)} (%)" for split in splits} | {
        metric: head
        for metric, head in _among_all(splits, measure).items()
        if any(g.numbers(metric) for g in groups)
    }
    heads = ["setting", "n", *results.values()]
    heads += [*(f"{split_label(split)}: gap to teacher (points)" for split in gaps), *columns]
    best = {metric: best_of([g.numbers(metric) for g in groups]) for metric in results}
    if not judged_alike(groups):  # results of other test images are better or worse than none
        best = dict.fromkeys(best)
    rows = [
        Row(
            head=group.label,
            style=group.number,
            cells=(
                Cell(text=str(len(group.runs)), value=len(group.runs)),
                *(_spread_cell(group.spread(metric), best=best[metric] == i) for metric in results),
                *(_spread_cell(group.gap(split)) for split in gaps),
                *(_setting_cell(group.values[name]) for name in columns),
            ),
        )
        for i, group in enumerate(groups)
    ]
    for teacher in teachers_of(groups) if gaps else ():
        found = [_teacher_cell([teacher_number(run, metric) for run in teacher.runs]) for metric in results]
        blank = [Cell(text="")] * (len(gaps) + len(columns))
        rows.append(Row(head=teacher.label, style=None, cells=(Cell(text=""), *found, *blank)))
    return Table(title="Results", columns=tuple(heads), rows=tuple(rows))


def _among_all(splits: Sequence[str], measure: str) -> dict[str, str]:
    """Return the metrics where all classes of the data compete, with their headings."""
    found = {f"{split}_all_{measure}": f"{split_label(split)} among all (%)" for split in splits}
    return found | {f"all{_head(s)}_harmonic_mean": f"harmonic mean among all{_of(s)} (%)" for s in splits}


def _head(split: str) -> str:
    _, at, head = split.partition("@")
    return f"{at}{head}"


def _of(split: str) -> str:
    return f" ({_head(split)[1:]})" if "@" in split else ""


def quality_table(groups: Sequence[Group], splits: Sequence[str]) -> Table | None:
    """Return top-5 accuracies, calibration errors and AUROC, a row a group; None where no run has them."""
    named = {
        **{f"{s}_top5_accuracy": (f"{split_label(s)}, top 5 (%)", 1) for s in splits},
        **{f"{s}_all_top5_accuracy": (f"{split_label(s)} among all, top 5 (%)", 1) for s in splits},
        **{f"{s}_ece": (f"{split_label(s)}, ECE", 3) for s in splits},
        **{f"{s}_all_ece": (f"{split_label(s)} among all, ECE", 3) for s in splits},
        **{f"id_ood{_head(s)}_auroc": (f"AUROC, ID against OOD{_of(s)}", 3) for s in splits},
    }
    used = {metric: how for metric, how in named.items() if any(g.numbers(metric) for g in groups)}
    if not used:
        return None
    rows = [
        Row(
            head=group.label,
            style=group.number,
            cells=tuple(_spread_cell(group.spread(metric), digits) for metric, (_, digits) in used.items()),
        )
        for group in groups
    ]
    for teacher in teachers_of(groups):
        of_runs = {metric: [teacher_number(run, metric) for run in teacher.runs] for metric in used}
        cells = tuple(_teacher_cell(of_runs[metric], digits) for metric, (_, digits) in used.items())
        rows.append(Row(head=teacher.label, style=None, cells=cells))
    heads = ("setting", *(head for head, _ in used.values()))
    return Table(title="Top 5, calibration, ID against OOD", columns=heads, rows=tuple(rows))


def _teacher_cell(values: Sequence[float | None], digits: int = 1) -> Cell:
    """Return a teacher's number: of all its runs the same, unless its texts were learnt anew in each."""
    # Another machine's last digits make no other number.
    return _spread_cell(spread(sorted({round(value, 6) for value in values if value is not None})), digits)


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


def as_markdown(question: str, tables: Sequence[Table], note: str) -> str:
    """Return tables as Markdown; the best of a column is bold."""
    lines = [f"# {plain(question)}", ""]
    for table in tables:
        lines += [_md_row(table.columns), _md_row(["---"] * len(table.columns))]
        for row in table.rows:
            marked = (f"**{plain(c.text)}**" if c.best else plain(c.text) for c in row.cells)
            lines.append(_md_row([plain(row.head), *marked]))
        lines.append("")
    return "\n".join([*lines, note, ""])


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
    teachers = {f"{split}_accuracy": None for run in runs for split in _dict(run.summary, "teacher_accuracy")}
    teachers |= dict.fromkeys(name for run in runs for name in _dict(run.summary, "teacher_metrics"))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "seed", *columns, *results, *numbers, *(f"teacher_{name}" for name in teachers)])
    for run in runs:
        settings = [written(value_of(run, name)) for name in columns]
        found = [run.summary.get(name, "") for name in [*results, *numbers]]
        teacher = ["" if (n := teacher_number(run, name)) is None else n for name in teachers]
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
