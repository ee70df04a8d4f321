"""Which charts a report has: every loss and metric over the epochs, and ID against OOD."""

from __future__ import annotations

from distill.headline import COSINE
from distill.report.charts import Chart, Point, Series, draw
from distill.report.collect import TEACHER
from distill.report.tasks import Part, headings
from distill.spread import spread


def loss_charts(part: Part) -> list[Chart]:
    """Return a chart of every part of the training loss, unweighted; ``total`` is the weighted sum."""
    charts = []
    for metric in _metrics(part, "loss_", ""):
        weighting = "weighted sum" if metric == "loss_total" else "unweighted"
        title = f"Loss: {metric.removeprefix('loss_')}"
        charts.append(_over_epochs(part, metric, title, f"loss, {weighting}"))
    return charts


def metric_charts(part: Part) -> list[Chart]:
    """Return a chart of every split's headline metrics over the epochs, in percent, or cosines."""
    metrics = _metrics(part, "", f"_{part.task.measure}")
    cosines = _metrics(part, "", f"_{COSINE}")
    titles = headings(part.task.results, [metric.removesuffix(f"_{part.task.measure}") for metric in metrics])
    return [
        _over_epochs(part, metric, titles[metric].removesuffix(" (%)"), f"{part.task.called} (%)")
        for metric in metrics
        if not metric.endswith(f"_top5_{part.task.measure}")
    ] + [
        _over_epochs(part, metric, metric.replace("_", " "), "mean cosine with the teacher")
        for metric in cosines
    ]


def _metrics(part: Part, start: str, end: str) -> list[str]:
    lines = (line for run in part.counted for line in run.history)
    names = dict.fromkeys(name for line in lines for name in line)
    return [name for name in names if name.startswith(start) and name.endswith(end)]


def _over_epochs(part: Part, metric: str, title: str, y_name: str) -> Chart:
    series = []
    for group in part.groups:
        values: dict[int, list[float]] = {}
        for run in group.runs:
            for line in run.history:
                if isinstance(line.get(metric), int | float):
                    values.setdefault(int(line["epoch"]) + 1, []).append(line[metric])
        points = [
            Point(x=epoch, y=over.mean, spread=over.std, note=f"n = {over.n}")
            for epoch, of_seeds in sorted(values.items())
            if (over := spread(of_seeds))
        ]
        if points:
            series.append(Series(label=group.label, points=tuple(points), style=group.number))
    name = "".join(c if c.isalnum() else "-" for c in metric)
    return draw(f"{part.task.name}-{name}", title, series, x_name="epoch", y_name=y_name, whole_x=True)


def scatter_charts(part: Part) -> list[Chart]:
    """Return ID against OOD of every group, beside the teacher, and once more without it: closer."""
    across, up = (metric for metric, _ in part.task.scatter)
    students = []
    for group in part.groups:
        x, y = group.spread(across), group.spread(up)
        if x is not None and y is not None:
            point = Point(x=x.mean, y=y.mean, x_spread=x.std, spread=y.std, note=f"n = {x.n}")
            students.append(Series(label=group.label, points=(point,), style=group.number))
    if not students:
        return []
    teachers = []
    for teacher in part.teachers:
        x, y = teacher.spread(TEACHER, across), teacher.spread(TEACHER, up)
        if x is not None and y is not None:
            teachers.append(Series(label=teacher.label, points=(Point(x=x.mean, y=y.mean),), style=None))
    drawn = [("scatter", "Students", students)]
    if teachers:
        drawn.insert(0, ("scatter-teacher", "Students and teacher", [*students, *teachers]))
    (_, x_name), (_, y_name) = part.task.scatter
    return [
        draw(f"{part.task.name}-{name}", title, series, x_name=x_name, y_name=y_name, lines=False)
        for name, title, series in drawn
    ]
