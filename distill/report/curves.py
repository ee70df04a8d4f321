"""Which charts a report has: every loss and metric over the epochs, and ID against OOD."""

from __future__ import annotations

from collections.abc import Sequence

from distill.report.charts import Chart, Point, Series, draw
from distill.report.groups import Group, split_label, teacher_of, teachers_of
from distill.spread import spread

TITLES = {"train": "training images", "id_val": "ID set aside"}


def loss_charts(groups: Sequence[Group]) -> list[Chart]:
    """Return a chart of every part of the training loss, unweighted; ``total`` is the weighted sum."""
    charts = []
    for name in _names(groups, "loss_", ""):
        kind = "weighted sum" if name == "loss_total" else "unweighted"
        charts.append(_over_epochs(groups, name, f"Loss: {name.removeprefix('loss_')}", f"loss, {kind}"))
    return charts


def metric_charts(groups: Sequence[Group], measure: str, called: str) -> list[Chart]:
    """Return a chart of every split's headline metric, in percent: among its own classes, and among all."""
    charts = []
    names = _names(groups, "", f"_{measure}")
    for name in (name for name in names if not name.endswith(f"_top5_{measure}")):
        split = name.removesuffix(f"_{measure}")
        among_all = split.endswith("_all") and f"{split.removesuffix('_all')}_{measure}" in names
        split = split.removesuffix("_all") if among_all else split
        title = TITLES.get(split, split_label(split)) + (" among all classes" if among_all else "")
        charts.append(_over_epochs(groups, name, title, f"{called} (%)"))
    return charts


def _names(groups: Sequence[Group], start: str, end: str) -> list[str]:
    lines = (line for group in groups for run in group.runs for line in run.history)
    names = dict.fromkeys(name for line in lines for name in line)
    return [name for name in names if name.startswith(start) and name.endswith(end)]


def _over_epochs(groups: Sequence[Group], metric: str, title: str, y_name: str) -> Chart:
    series = []
    for group in groups:
        found: dict[int, list[float]] = {}
        for run in group.runs:
            for line in run.history:
                if isinstance(line.get(metric), int | float):
                    found.setdefault(int(line["epoch"]) + 1, []).append(line[metric])
        points = []
        for epoch, values in sorted(found.items()):
            over = spread(values)
            assert over is not None
            points.append(Point(x=epoch, y=over.mean, spread=over.std, note=f"n = {over.n}"))
        if points:
            series.append(Series(label=group.label, points=tuple(points), style=group.number))
    name = f"chart-{''.join(c if c.isalnum() else '-' for c in metric)}"
    return draw(name, title, series, x_name="epoch", y_name=y_name, whole_x=True)


def scatter_charts(groups: Sequence[Group], measure: str, called: str) -> list[Chart]:
    """Return ID against OOD of every group, beside the teacher, and once more without it: closer."""
    students = []
    for group in groups:
        across, up = (group.spread(f"{split}_{measure}") for split in ("id_test", "ood_test"))
        if across is not None and up is not None:
            point = Point(
                x=across.mean, y=up.mean, x_spread=across.std, spread=up.std, note=f"n = {across.n}"
            )
            students.append(Series(label=group.label, points=(point,), style=group.number))
    if not students:
        return []
    across_name, up_name = f"ID, {called} (%)", f"OOD, {called} (%)"
    teachers = _teachers(groups) if measure == "accuracy" else []
    drawn = [("chart-scatter", "Students", students)]
    if teachers:
        drawn.insert(0, ("chart-scatter-teacher", "Students and teacher", [*students, *teachers]))
    return [
        draw(name, title, series, x_name=across_name, y_name=up_name, lines=False)
        for name, title, series in drawn
    ]


def _teachers(groups: Sequence[Group]) -> list[Series]:
    found = []
    for teacher in teachers_of(groups):
        across, up = (
            spread(sorted({t for run in teacher.runs if (t := teacher_of(run, split)) is not None}))
            for split in ("id_test", "ood_test")
        )
        if across is not None and up is not None:
            found.append(Series(label=teacher.label, points=(Point(x=across.mean, y=up.mean),), style=None))
    return found
