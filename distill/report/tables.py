"""The tables of a report: plain cells of text, with the number that a column is sorted by."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.data.pool import pool_words
from distill.headline import SET_ASIDE, one_class_notes
from distill.record.run_files import MEANS
from distill.report.answer import signed
from distill.report.collect import TEACHER, Run
from distill.report.differences import LOWER_IS_BETTER, Compared, Measure, compared, measures
from distill.report.groups import (
    CLOSED_FORM,
    Group,
    TeacherRuns,
    closed_forms_of,
    differing,
    label_of,
    shortened_paths,
    value_of,
    written,
)
from distill.report.tasks import Part, headings, parts_of, split_label
from distill.spread import Spread

# A number of the epoch that was best on a test split is no result: nothing chose that epoch.
CHOSEN_ON_TEST = "_best_epoch"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Text, the number it is sorted by (None: last), and ``mark``.

    That is best for the best of its column, alike for what cannot be told from it.
    """

    text: str = ""
    value: float | None = None
    mark: str = ""


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
    rows: tuple[Row, ...]
    note: str = ""


def _table(
    title: str,
    corner: str,
    heads: Sequence[tuple[str, int | None]],
    columns: Sequence[tuple[str, Sequence[Cell]]],
    note: str = "",
) -> Table:
    """Return (head, style) rows under (heading, cells) columns, without rows and columns of nothing.

    A column may have fewer cells than there are rows: the last ones are empty.
    """
    used = [(heading, cells) for heading, cells in columns if any(cell.text for cell in cells)]
    rows = [
        Row(head=head, style=style, cells=tuple(cells[i] if i < len(cells) else Cell() for _, cells in used))
        for i, (head, style) in enumerate(heads)
    ]
    return Table(
        title=title,
        columns=(corner, *(heading for heading, _ in used)),
        rows=tuple(row for row in rows if any(cell.text for cell in row.cells)),
        note=note,
    )


def by_group(title: str, part: Part, columns: Sequence[tuple[str, Sequence[Cell]]], note: str = "") -> Table:
    """Return a table of a row a group, and one a teacher where there are cells for it."""
    groups = [(group.label, group.number) for group in part.groups]
    return _table(title, "setting", [*groups, *((one.label, None) for one in part.teachers)], columns, note)


def mean_cell(value: Spread | None, digits: int = 1, *, unit: float = 1, mark: str = "") -> Cell:
    """Return the cell of a mean, with its deviation; an empty one for None."""
    if value is None:
        return Cell()
    around = "" if value.std is None else f" ± {value.std / unit:,.{digits}f}"
    return Cell(text=f"{value.mean / unit:,.{digits}f}{around}", value=value.mean / unit, mark=mark)


def constant_cell(value: Spread | None, digits: int, *, unit: float = 1) -> Cell:
    """Return :func:`mean_cell` of what may be the same of all seeds, which then has no deviation."""
    if value is not None and value.std == 0:
        value = replace(value, std=None)
    return mean_cell(value, digits, unit=unit)


def _metric(part: Part, metric: str, heading: str, told: Compared | None = None) -> tuple[str, list[Cell]]:
    """Return a metric's column, of the students and the teachers."""
    digits = _digits(heading)
    own = [mean_cell(group.spread(metric), digits, mark=_mark(group, told)) for group in part.groups]
    return heading, [*own, *(mean_cell(teacher.spread(TEACHER, metric), digits) for teacher in part.teachers)]


def _mark(group: Group, told: Compared | None) -> str:
    if told is None or told.alike is None:
        return ""
    if group.number == told.best.number:
        return "best"
    return "alike" if group in told.alike else ""


def _digits(heading: str) -> int:
    return 1 if heading.endswith("(%)") else 3  # of shares, which are 0 to 1


def main_table(part: Part) -> Table:
    """Return the results, a row a group and one a teacher, before them one a head by ridge that runs have.

    n, the task's results on every split, beside those that the answer is about the
    difference from the baseline, those of the means of their weights and at the size that they chose, the
    gaps to the teacher, start and pool where they differ, and the settings that differ.
    """
    results = headings(part.task.results, part.splits)
    answered = {measure.path: compared(part, measure) for measure in measures(part)}
    columns = [("n", [Cell(text=str(len(group.runs)), value=len(group.runs)) for group in part.groups])]
    for metric, heading in results.items():
        told = answered.get((metric,)) or compared(part, Measure(path=(metric,), called=heading))
        columns.append(_metric(part, metric, heading, told))
        if (metric,) in answered and told is not None and told.differences:
            cells = [_difference_cell(group, told) for group in part.groups]
            columns.append((f"{told.measure.called}: difference (points)", cells))
    for split in part.splits:
        metric = f"{split}_accuracy"
        for words, path in (
            *((f"{mean} weights", (f"{mean}_{metric}",)) for mean in MEANS),
            ("chosen size and crop", ("chosen_eval", metric)),
        ):
            beside = [group.spread(*path) for group in part.groups]
            if any(beside):
                columns.append((f"{split_label(split)}, {words}", [mean_cell(value) for value in beside]))
    for metric, heading in headings(part.task.gaps, part.splits).items():
        columns.append((heading, [mean_cell(group.gap(metric)) for group in part.groups]))
    columns += [*_facts_that_differ(part)]
    for name in part.settings:
        if not all(_says(group, name) for group in part.groups):
            columns.append((name, [_setting_cell(group.values[name]) for group in part.groups]))
    return _below_closed_forms(by_group("Results", part, columns), part, results)


def _difference_cell(group: Group, told: Compared) -> Cell:
    difference = told.of(group)
    if difference is None:
        return Cell(text="baseline" if group.numbers(*told.measure.path) else "")
    return Cell(text=signed(difference.points, told.measure.digits), value=difference.points)


def _facts_that_differ(part: Part) -> Iterator[tuple[str, list[Cell]]]:
    """Return where a student's weights began and which pool it learnt from, where groups differ in it."""
    facts: tuple[tuple[str, Callable[[Run], str]], ...] = (("start", start_words), ("pool", _pool))
    for name, of_run in facts:
        texts = [" or ".join(dict.fromkeys(map(of_run, group.runs))) for group in part.groups]
        if len(set(texts)) > 1:
            yield name, [Cell(text=text or "none") for text in texts]


def start_words(run: Run) -> str:
    """Return where a student's first weights are from."""
    start = run.table("first_weights").get("start")
    return start if isinstance(start, str) else ""


def _pool(run: Run) -> str:
    return pool_words(run.table("pool"))


def _below_closed_forms(table: Table, part: Part, results: dict[str, str]) -> Table:
    """Return a table of results with a row of each head by ridge before its own."""
    metrics = {heading: metric for metric, heading in results.items()}
    rows = [
        Row(
            head=label,
            cells=tuple(
                mean_cell(group.spread(CLOSED_FORM, metrics[heading]), _digits(heading))
                if heading in metrics
                else Cell()
                for heading in table.columns[1:]
            ),
        )
        for label, group in closed_forms_of(part.groups)
    ]
    return replace(table, rows=(*rows, *table.rows))


def _says(group: Group, name: str) -> bool:
    """Say whether a group's label tells a setting: made of all of them, or with KEY=VALUE of this one."""
    if group.label == label_of(group.values, group.runs[0].settings):
        return True
    told = {part.strip() for part in group.label.split(",")}
    called = (name, name.rpartition(".")[2])
    return any(f"{one}={written(group.values[name])}" in told for one in called)


def _setting_cell(value: Any) -> Cell:
    return Cell(
        text=shortened_paths(written(value)), value=float(value) if isinstance(value, int | float) else None
    )


def note_on_results(part: Part) -> str:
    """Return what explains the columns of both tables, and what a split of one class has no number in."""
    columns = headings((*part.task.results, *part.task.further), part.splits)
    told = part.task.note(name for name in columns if any(g.numbers(name) for g in part.groups))
    alone = {split_label(split): True for split in part.splits if _has_one_class(part, split)}
    notes = one_class_notes(alone) if part.task.confuses else []
    return " ".join([told, *(f"{note}." for note in notes)]).strip()


def _has_one_class(part: Part, split: str) -> bool:
    return any(run.number("classes", split.partition("@")[0]) == 1 for run in part.runs)


def further_table(part: Part) -> Table | None:
    """Return what is judged beside the headline, a row a group and one a teacher; None of nothing."""
    further = headings(part.task.further, part.splits)
    columns = [_metric(part, metric, heading) for metric, heading in further.items()]
    both = any(group.numbers(name) for group in part.groups for name in further if name.endswith("_auroc"))
    title = f"{part.task.further_title}{', ID against OOD' if both else ''}"
    table = by_group(title, part, columns)
    return table if table.rows else None


def per_class_tables(part: Part) -> list[Table]:
    """Return every class's number by split, OOD first: images, the teacher's, then every group's mean."""
    key, runs, tables = part.task.per_class, part.counted, []
    told = {split.partition("@")[0] for split in part.splits}
    aside = {name for name in SET_ASIDE if name not in told}
    splits = dict.fromkeys(s for run in runs for s in run.table(key) if s.partition("@")[0] not in aside)
    for split in sorted(splits, key=lambda split: not split.startswith("ood")):
        names = list(dict.fromkeys(name for run in runs for name in run.table(key, split)))
        images = _images_of_classes(runs, split)
        sides: list[tuple[Group | TeacherRuns, str]] = [(one, f"teacher_{key}") for one in part.teachers]
        sides += [(one, key) for one in part.groups]
        columns = [("images", [images.get(name, Cell()) for name in names])]
        for one, where in sides:
            cells = [mean_cell(one.spread(where, split, name)) for name in names]
            columns.append((f"{one.label} (%)", cells))
        heads = [(name, -1) for name in names]
        among = " among all" if part.task.confuses and _has_one_class(part, split) else ""
        tables.append(_table(f"{split_label(split)}{among}", part.task.members, heads, columns))
    return tables


def _images_of_classes(runs: Sequence[Run], split: str) -> dict[str, Cell]:
    """Return how many images of every class were judged; all numbers where runs were judged on others."""
    counts: dict[str, dict[int, None]] = {}
    for run in runs:
        answers = run.outputs.answers.get(split.partition("@")[0]) if run.outputs else None
        if answers is not None:
            labels = answers.labels.tolist()
            for i, name in enumerate(answers.class_names):
                counts.setdefault(name, {})[labels.count(i)] = None
    return {
        name: Cell(text=" or ".join(f"{n:,}" for n in of_class), value=min(of_class))
        for name, of_class in counts.items()
    }


def space_tables(part: Part) -> list[Table]:
    """Return the space metrics by split, a row a group."""
    runs, tables = part.counted, []
    for split in dict.fromkeys(split for run in runs for split in run.table("space")):
        names = dict.fromkeys(n for run in runs for n in run.table("space", split) if n != "images")
        columns = [
            (
                f"{name} {'↓' if name in LOWER_IS_BETTER else '↑'}",
                [mean_cell(group.spread("space", split, name), 3) for group in part.groups],
            )
            for name in names
        ]
        images = sorted({n for run in runs if (n := run.number("space", split, "images")) is not None})
        note = f"{' or '.join(f'{n:,}' for n in images)} {part.task.unit}"
        tables.append(by_group(split_label(split), part, columns, note))
    return tables


def as_csv(runs: Sequence[Run]) -> str:
    """Return one line a finished run: name, seed, every differing setting and every result."""
    settings = differing(runs)
    headlines = [f"{split}_{part.task.measure}" for part in parts_of(runs) for split in part.splits]
    numbers = [
        name
        for run in runs
        for name, value in run.summary.items()
        if isinstance(value, int | float) and not name.endswith(CHOSEN_ON_TEST)
    ]
    results = list(dict.fromkeys([*headlines, *numbers]))
    teachers = list(dict.fromkeys(name for run in runs for name in run.table(TEACHER)))
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["run", "seed", *settings, *results, *(f"teacher_{name}" for name in teachers)])
    for run in runs:
        texts = [run.name, *(written(value_of(run, name)) for name in settings)]
        name, *values = map(_no_formula, texts)
        own = [run.number(name) for name in results]
        writer.writerow([name, run.seed, *values, *own, *(run.number(TEACHER, name) for name in teachers)])
    return buffer.getvalue()


def _no_formula(text: str) -> str:
    """Return a text that a spreadsheet takes for a text, not for a formula."""
    if not text.startswith(("=", "+", "-", "@", "\t", "\r")):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
