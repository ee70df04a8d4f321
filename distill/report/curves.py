"""Which charts a report has: metrics and losses over the epochs, ID against OOD, accuracy over shots."""

from __future__ import annotations

from collections.abc import Sequence

from distill.headline import COSINE
from distill.report.charts import Axis, Chart, Level, Point, Series, draw
from distill.report.collect import TEACHER
from distill.report.groups import Group
from distill.report.tasks import Part, headings
from distill.spread import spread

# What the log may say of the optimiser, and how that is called.
OPTIMISER = {
    "lr": "learning rate",
    "grad_norm": "norm of the gradient",
}
# Students that take less of the axis than this are drawn once more without chance and teacher.
CLOSER = 0.4


def loss_charts(part: Part) -> list[Chart]:
    """Return a chart of every part of the training loss, unweighted; ``total`` is the weighted sum."""
    charts = []
    for metric in _metrics(part, "loss_", ""):
        weighting = "weighted sum" if metric == "loss_total" else "unweighted"
        title = f"Loss: {metric.removeprefix('loss_')}"
        charts += _over_epochs(part, metric, title, Axis(name=f"loss, {weighting}"))
    return charts


def optimiser_charts(part: Part) -> list[Chart]:
    """Return a chart of the learning rate, and one of the gradient's norm where the log has that."""
    logged = _metrics(part, "", "")
    charts = []
    for metric, called in OPTIMISER.items():
        if metric in logged:
            charts += _over_epochs(part, metric, called.capitalize(), Axis(name=called, low=0))
    return charts


def metric_charts(part: Part, *, closer: bool = False) -> list[Chart]:
    """Return a chart of every split's headline metrics over the epochs, in percent, all on one scale.

    Chance and the teachers are lines across; ``closer`` is without them, and empty where there is no need.
    """
    logged = _metrics(part, "", f"_{part.task.measure}")
    order = [*headings(part.task.results, part.splits), *logged]
    names = [name for name in dict.fromkeys(order) if name in logged and "_top5_" not in name]
    lines = {metric: () if closer else _levels(part, metric) for metric in names}
    own = [n for metric in names for group in part.groups for n in _numbers(group, metric)]
    beside = [level.y for metric in names for level in _levels(part, metric)]
    span = max([*own, *beside], default=0) - min([*own, *beside], default=0)
    if not own or (closer and (not beside or max(own) - min(own) > CLOSER * span)):
        return []
    ends = own if closer else [*own, *beside]
    scale = Axis(name=f"{part.task.called} (%)", low=0, high=100, within=(min(ends), max(ends)))
    titles = headings(part.task.results, [metric.removesuffix(f"_{part.task.measure}") for metric in names])
    charts = []
    for metric in names:
        title = titles[metric].removesuffix(" (%)")
        charts += _over_epochs(part, metric, title, scale, lines[metric], "-closer" if closer else "")
    return charts


def cosine_charts(part: Part) -> list[Chart]:
    """Return a chart of every split's mean cosine, of students whose teacher has no texts."""
    scale = Axis(name="mean cosine with the teacher", low=-1, high=1)
    names = _metrics(part, "", f"_{COSINE}")
    return [c for name in names for c in _over_epochs(part, name, name.replace("_", " "), scale)]


def _numbers(group: Group, metric: str) -> list[float]:
    values = (line.get(metric) for run in group.runs for line in run.history)
    return [value for value in values if isinstance(value, int | float)]


def _levels(part: Part, metric: str) -> tuple[Level, ...]:
    """Return what a metric is by chance, and of each teacher."""
    levels = []
    for teacher in part.teachers[:3]:
        value = teacher.spread(TEACHER, metric)
        if value is not None:
            levels.append(Level(label=f"{teacher.label} {value.mean:.1f}", y=value.mean, kind="teacher"))
    by_chance = chance(part, metric)
    if by_chance is not None:
        levels.append(Level(label=f"chance {by_chance:.1f}", y=by_chance, kind="chance"))
    return tuple(levels)


def chance(part: Part, metric: str) -> float | None:
    """Return the macro accuracy of any guess, in percent: of a split's own classes or of all of the data.

    None of episodes, of top 5, and where runs have several.
    """
    if part.task.measure != "accuracy" or not metric.endswith("_accuracy") or "top5" in metric:
        return None
    split, among_all = metric.removesuffix("_accuracy"), metric.endswith("_all_accuracy")
    split = split.removesuffix("_all").partition("@")[0]
    found = set[float | None]()
    for run in part.counted:
        if among_all and run.identity is not None:
            splits = (*run.identity.learnt_from.values(), *run.identity.judged_on.values())
            names = {name for one in splits for name in one.class_names}
            found.add(len(names))
        elif not among_all:
            found.add(run.number("classes", split))
    (count,) = found if len(found) == 1 else (None,)
    return 100 / count if count else None


def _metrics(part: Part, start: str, end: str) -> list[str]:
    lines = (line for run in part.counted for line in run.history)
    names = dict.fromkeys(name for line in lines for name in line)
    return [name for name in names if name.startswith(start) and name.endswith(end)]


def _over_epochs(
    part: Part, metric: str, title: str, scale: Axis, levels: Sequence[Level] = (), ending: str = ""
) -> list[Chart]:
    """Return the chart of a metric by epochs from 1, none where no run has a number of it."""
    series = []
    for group in part.groups:
        values: dict[int, list[float]] = {}
        for run in group.runs:
            for line in run.history:
                if isinstance(line.get(metric), int | float):
                    values.setdefault(int(line["epoch"]), []).append(line[metric])
        points = [
            Point(x=epoch, y=over.mean, spread=over.std, note=f"n = {over.n}")
            for epoch, of_seeds in sorted(values.items())
            if (over := spread(of_seeds))
        ]
        if points:
            series.append(Series(label=group.label, points=tuple(points), style=group.number))
    if not series:
        return []
    name = f"{part.task.name}-{''.join(c if c.isalnum() else '-' for c in metric)}{ending}"
    last = max(len(run.history) for run in part.counted)
    epochs = Axis(name="epoch", low=1, within=(1, last), whole=True)
    return [draw(name, title, series, x=epochs, y=scale, levels=levels)]


def scatter_charts(part: Part) -> list[Chart]:
    """Return ID against OOD of every group beside the teacher on one scale, and without it: closer."""
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
    (_, x_name), (_, y_name) = part.task.scatter
    charts = []
    if teachers:
        points = [one.points[0] for one in (*students, *teachers)]
        ends = [n for p in points for n in (p.x, p.y)]
        low, high = min(ends), max(ends)
        same = Series(label="ID and OOD alike", points=(Point(x=low, y=low), Point(x=high, y=high)), style=-1)
        x_axis, y_axis = (Axis(name=name, low=0, high=100, within=(low, high)) for name in (x_name, y_name))
        drawn = [*students, *teachers, same]
        name, title = f"{part.task.name}-scatter-teacher", "Students and teacher"
        charts.append(draw(name, title, drawn, x=x_axis, y=y_axis, lines=False))
    x_axis, y_axis = (Axis(name=name, low=0, high=100) for name in (x_name, y_name))
    name = f"{part.task.name}-scatter"
    return [*charts, draw(name, "Students, closer", students, x=x_axis, y=y_axis, lines=False)]
