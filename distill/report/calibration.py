"""How far probabilities can be believed: reliability diagrams, and calibration errors before and after."""

from __future__ import annotations

from collections.abc import Sequence

from distill.judge.calibration import BINS, ReliabilityBin
from distill.report.charts import Axis, Chart, Point, Series, draw
from distill.report.tables import Table, by_group, constant_cell, mean_cell
from distill.report.tasks import Part, split_label

PERFECT = Series(label="as sure as right", points=(Point(x=0, y=0), Point(x=100, y=100)), style=-1)
# What fewer images than these say of a bin is chance.
FEW = 10
COLUMNS = (
    ("{}: ECE before (%)", ("splits", "before")),
    ("{}: ECE (%)", ("splits", "ece")),
    ("{} among all: ECE (%)", ("among_all", "ece")),
)


def reliability_charts(part: Part) -> list[Chart]:
    """Return a reliability diagram of every test split: how often answers of some certainty are right."""
    charts = []
    for split in _splits(part):
        series = []
        for group in part.groups:
            fits = [run.calibration for run in group.runs if run.calibration is not None]
            bins = [one for fit in fits if split in fit.splits for one in fit.splits[split].bins]
            if points := _joined(bins):
                series.append(Series(label=group.label, points=points, style=group.number))
        name = "".join(c if c.isalnum() else "-" for c in split)
        charts.append(
            draw(
                f"reliability-{name}",
                split_label(split),
                [*series, PERFECT],
                x=Axis(name="probability of the answer (%)", low=0, high=100),
                y=Axis(name="answers that are right (%)", low=0, high=100),
            )
        )
    return charts


def _joined(bins: Sequence[ReliabilityBin]) -> tuple[Point, ...]:
    """Return the bins of all seeds as points in percent, each with the images of every seed: FEW or more."""
    by_place: dict[int, list[ReliabilityBin]] = {}
    for one in bins:
        by_place.setdefault(min(int(one.confidence * BINS), BINS - 1), []).append(one)
    points = []
    for _, joined in sorted(by_place.items()):
        images = sum(one.images for one in joined)
        if images < FEW:
            continue
        sure, right = (
            100 * sum(getattr(one, name) * one.images for one in joined) / images
            for name in ("confidence", "accuracy")
        )
        points.append(Point(x=sure, y=right, note=f"{images:,} images"))
    return tuple(points)


def calibration_table(part: Part) -> Table | None:
    """Return temperatures and calibration errors, a row a group; None where no run has any."""
    columns = [
        (heading, [constant_cell(group.spread("calibration", name), 4) for group in part.groups])
        for heading, name in (("temperature of the training", "trained_with"), ("fitted", "temperature"))
    ]
    for split in _splits(part):
        for heading, (among, name) in COLUMNS:
            cells = [mean_cell(group.spread("calibration", among, split, name)) for group in part.groups]
            columns.append((heading.format(split_label(split)), cells))
    table = by_group("Calibration", part, columns)
    return table if table.rows else None


def fitted_on(part: Part) -> str:
    """Return what temperatures were fitted on, in words."""
    fits = [run.calibration for run in part.counted if run.calibration is not None]
    return " / ".join(dict.fromkeys(f"{fit.set_on_words} ({fit.images:,})" for fit in fits))


def _splits(part: Part) -> list[str]:
    """Return the splits that some run's calibration is of, ID first."""
    fits = [run.calibration for run in part.counted if run.calibration is not None]
    return sorted(
        dict.fromkeys(name for fit in fits for name in fit.splits), key=lambda n: n.startswith("ood")
    )
