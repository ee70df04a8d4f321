"""``distill compare``: what differs between two runs, or between two sets of runs over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, nearest_names
from distill.config import LOSS_TERMS, RunConfig
from distill.record.run_files import CONFIG
from distill.report.answer import answers
from distill.report.collect import Run, collect, data_differences, judged_differences
from distill.report.costs import why_not
from distill.report.groups import CLOSED_FORM, WEIGHTS, Group, differing, teachers_of
from distill.report.statistics import TTest, holm, t_test
from distill.report.tables import CHOSEN_ON_TEST
from distill.report.tasks import EPISODES, PHOTOS, Part, headings, split_label
from distill.settings import differences, from_toml, with_part
from distill.spread import Spread, spread
from distill.sweep.plan import SEED

LAST_EPOCHS = 5
# How the names of test results begin.
RESULTS = ("id_", "ood_", "all")
MEMORY = "peak_memory_GB"
# What results are about; of the first two one side alone may have a number.
RIDGE, JUDGED_BY, COST = "closed form", "results", "cost"
JUDGED = (RIDGE, JUDGED_BY)


@dataclass(frozen=True, kw_only=True)
class Result:
    """One metric of both sides; ``difference`` is other less one. ``test`` is None without several seeds.

    ``section`` is what it is about, ``called`` how a report calls it; ``p_value`` is the test's with Holm's
    adjustment over its section. A side that was not judged so, such as one without that test split, is None,
    and so is the difference.
    """

    metric: str
    section: str
    called: str
    one: Spread | None
    other: Spread | None
    difference: float | None
    test: TTest | None
    p_value: float | None = None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs: ``settings`` in the configs, ``surroundings`` beside them, and the results.

    ``names`` are the sides, as short as tells them apart; ``answer`` says what won by the first measure, by
    how much and how sure that is, a comparison of its own; ``how`` which seeds were compared, and how;
    ``left_out`` what cannot be compared, and why.
    """

    names: tuple[str, str]
    answer: str
    how: str
    settings: tuple[str, ...]
    surroundings: tuple[str, ...]
    left_out: tuple[str, ...]
    results: tuple[Result, ...]


def compare_runs(one: Path, other: Path) -> Comparison:
    """Compare two finished runs, or two sets of runs that differ in the seed alone.

    A set is a folder of such runs, or ``RUNS/SETTING`` of a sweep: its runs ``RUNS/SETTING,seed=*``.

    Seeds that both sides have are compared in pairs (a paired t-test); with fewer than two of them, and
    two runs on either side, by Welch's test; else there is a difference and no test. Losses are compared
    where they are the same losses, costs where the runs had a machine for themselves.

    Raises
    ------
    UserError
        If a folder holds no finished run, or runs that differ in more than the seed or share one, or one
        side is of photos and the other of episodes.
    """
    sides = [_side(path) for path in (one, other)]
    common = [seed for seed in sides[0] if seed in sides[1]]
    paired = len(common) > 1
    if paired:
        sides = [{seed: side[seed] for seed in common} for side in sides]
    ours, theirs = ([*side.values()] for side in sides)
    if ours[0].episodes != theirs[0].episodes:
        raise UserError(f"one of {one} and {other} is of episodes", fix="compare photos with photos.")
    names = _apart(one, other)
    part = _part(ours, theirs, names)
    changed = differences(_config(ours[0]), _config(theirs[0]))
    no_costs = why_not([*ours, *theirs])
    unlike = _unlike_losses(changed)
    results = []
    for section, metrics in _metrics(ours[0], theirs[0]).items():
        compared = [
            _result(section, metric, part, ours, theirs)
            for metric in metrics
            if metric not in unlike and not (section == COST and no_costs)
        ]
        there = [result for result in compared if result is not None]
        adjusted = holm([result.test.p_value if result.test else None for result in there])
        results += [replace(result, p_value=p) for result, p in zip(there, adjusted, strict=True)]
    return Comparison(
        names=names,
        answer=" ".join(f"{one.lead} {one.why}".strip() for one in answers(part)[:1]),
        how=_how([list(side) for side in sides], paired),
        settings=tuple(changed.values()),
        surroundings=tuple(_surroundings(ours[0], theirs[0])),
        left_out=tuple(filter(None, [_losses_words(unlike, changed), no_costs])),
        results=tuple(results),
    )


def _part(ours: Sequence[Run], theirs: Sequence[Run], names: tuple[str, str]) -> Part:
    """Return both sides as a report has them; the first is the baseline."""
    groups = tuple(
        Group(number=i, label=name, values={}, runs=tuple(runs))
        for i, (name, runs) in enumerate(zip(names, (ours, theirs), strict=True))
    )
    task = EPISODES if ours[0].episodes else PHOTOS
    return Part(
        task=task,
        runs=(*ours, *theirs),
        settings=(),
        groups=groups,
        teachers=tuple(teachers_of(groups)),
        splits=tuple(task.splits([*ours, *theirs])),
        baseline=groups[0],
    )


def _apart(one: Path, other: Path) -> tuple[str, str]:
    """Return two folders' names, with as many folders above as it takes to tell them apart."""
    mine, theirs = one.resolve().parts, other.resolve().parts
    for count in range(1, max(len(mine), len(theirs))):
        if mine[-count:] != theirs[-count:]:
            return "/".join(mine[-count:]), "/".join(theirs[-count:])
    return str(one), str(other)


def _unlike_losses(changed: dict[str, str]) -> tuple[str, ...]:
    """Return which losses are none of the same: all where their kind differs, the sum where a weight does."""
    of_loss = {name for name in changed if name.startswith("loss.")}
    if of_loss - {*WEIGHTS}:
        return tuple(f"loss_{name}" for name in (*LOSS_TERMS, "total"))
    return ("loss_total",) if of_loss else ()


def _losses_words(unlike: Sequence[str], changed: dict[str, str]) -> str:
    if not unlike:
        return ""
    what = "their sum is" if len(unlike) == 1 else "they are"
    names = ", ".join(name for name in changed if name.startswith("loss."))
    return f"losses: {what} not compared, being of other terms ({names})."


def _result(
    section: str, metric: str, part: Part, ours: Sequence[Run], theirs: Sequence[Run]
) -> Result | None:
    """Return one metric of both sides; None where some runs of a side have it and others not."""
    mine, yours = (
        {run.seed: number for run in runs if (number := _number(run, metric)) is not None}
        for runs in (ours, theirs)
    )
    if not (len(mine) == len(ours) and len(yours) == len(theirs)) and (
        section not in JUDGED or (mine and yours)
    ):
        return None
    one, other = spread([*mine.values()]), spread([*yours.values()])
    difference = other.mean - one.mean if one is not None and other is not None else None
    return Result(
        metric=metric,
        section=section,
        called=_called(metric, part),
        one=one,
        other=other,
        difference=difference,
        test=t_test(mine, yours) if difference is not None else None,
    )


def _called(metric: str, part: Part) -> str:
    """Return a metric in a report's words, whose long names may be broken between words."""
    patterns = (*part.task.headline, *part.task.results, *part.task.further)
    named = headings(patterns, part.splits)
    if metric in named:
        return named[metric]
    *before, last = metric.split("/")
    split = split_label(before[-1]) if before and before[0] == "space" else "".join(before)
    return f"{split}: {last}".replace("_", " ") if before else last.replace("_", " ")


def _side(path: Path) -> dict[Any, Run]:
    runs = collect(path).finished if path.is_dir() else _of_point(path)
    if not runs:
        raise UserError(f"{path} holds no finished run", fix="finish one: its command with --resume.")
    differ = differing(runs)
    if differ:
        other = next((run for run in runs if run.data != runs[0].data), runs[0])
        data = data_differences(other, runs[0], (f"in {other.name}", f"in {runs[0].name}"))
        raise UserError(
            f"the runs in {path} differ in more than the seed ({'; '.join([', '.join(differ[:4]), *data])})",
            fix="give one run, or all seeds of one setting of a sweep as RUNS/SETTING, such as "
            f"{path / (runs[0].point or 'base')}; 'distill report' shows all at once.",
        )
    side = {run.seed: run for run in runs}
    if len(side) < len(runs):
        raise UserError(f"several runs in {path} have one {SEED}", fix="keep one run a seed.")
    return side


def _of_point(path: Path) -> tuple[Run, ...]:
    """Return the finished runs of one setting of a sweep: ``RUNS/SETTING`` are ``RUNS/SETTING,seed=*``."""
    beside = collect(path.parent).finished if path.parent.is_dir() else ()
    mine = tuple(run for run in beside if run.path.parent == path.parent and run.point == path.name)
    if not mine:
        points = list(dict.fromkeys(run.point for run in beside if run.point))
        raise UserError(
            f"{path} is no run's folder, and {path.parent} has no finished run of that setting",
            fix=f"{nearest_names(path.name, points)}give a run, or RUNS/SETTING of a sweep"
            f"{': ' + ', '.join(points[:5]) if points else ''}.",
        )
    return mine


def _how(seeds: Sequence[Sequence[Any]], paired: bool) -> str:
    one, other = (", ".join(map(str, side)) for side in seeds)
    if paired:
        return f"paired t-test over the seeds {one}"
    if min(map(len, seeds)) > 1:
        return f"Welch's t-test of the seeds {one} and {other}"
    return f"seeds {one} and {other}: no test without several seeds on either side"


def _metrics(one: Run, other: Run) -> dict[str, list[str]]:
    """Return the names of what is compared by section: closed forms and results are of either."""
    of_ridge = dict.fromkeys(
        f"{CLOSED_FORM}/{name}"
        for run in (one, other)
        for name in run.table(CLOSED_FORM)
        if name in ("id_test_accuracy", "ood_test_accuracy")
    )
    numbers = [
        name for run in (one, other) for name, value in run.summary.items() if isinstance(value, int | float)
    ]
    results = dict.fromkeys(n for n in numbers if n.startswith(RESULTS) and not n.endswith(CHOSEN_ON_TEST))
    losses = dict.fromkeys(name for line in one.history for name in line if name.startswith("loss_"))
    space = [f"space/{s}/{n}" for s in one.table("space") for n in one.table("space", s) if n != "images"]
    return {
        RIDGE: [*of_ridge],
        JUDGED_BY: [*results],
        "training losses": [*losses],
        "space": space,
        COST: ["seconds", "images_per_s", MEMORY],
    }


def _number(run: Run, metric: str) -> float | None:
    if metric.startswith("loss_"):
        values = [line[metric] for line in run.history[-LAST_EPOCHS:] if metric in line]
        return sum(values) / len(values) if values else None
    if metric == MEMORY:
        host = run.number("peak_memory_bytes", "host")
        return None if host is None else host / 1e9
    return run.number(*metric.split("/"))


def _config(run: Run) -> RunConfig:
    return with_part(from_toml(run.config, where=str(run.path / CONFIG)), "train", seed=0)


def _surroundings(one: Run, other: Run) -> list[str]:
    """Return what else differs that can change a number: the data, the cache, versions, hardware.

    That other images were judged comes first.
    """
    sides = ("in the second", "in the first")
    lines = [f"data: {line}" for line in data_differences(other, one, sides)]
    if judged_differences(other, one):
        lines.insert(0, "the results are not comparable: they are of other test images")
    for name in ("cache_fingerprint", "versions", "hardware"):
        mine, yours = one.summary.get(name), other.summary.get(name)
        if mine != yours:
            lines.append(f"{name}: {mine} -> {yours}")
    return lines
