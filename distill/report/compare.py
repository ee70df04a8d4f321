"""``distill compare``: what differs between two runs, or between two sets of runs over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, nearest_names
from distill.config import RunConfig
from distill.record.run_files import CONFIG
from distill.report.collect import Run, collect, data_differences, judged_differences
from distill.report.groups import differing
from distill.report.statistics import TTest, paired_t, welch_t
from distill.report.tables import CHOSEN_ON_TEST
from distill.settings import differences, from_toml, with_part
from distill.spread import Spread, spread
from distill.sweep.plan import SEED

LAST_EPOCHS = 5
# How the names of test results begin.
JUDGED = ("id_", "ood_", "all")
CLOSED_FORM = "closed_form"
MEMORY = "peak_memory_GB"


@dataclass(frozen=True, kw_only=True)
class Result:
    """One metric of both sides; ``difference`` is other less one. ``test`` is None without several seeds.

    A side that was not judged so, such as one without that test split, is None, and so is the difference.
    """

    metric: str
    one: Spread | None
    other: Spread | None
    difference: float | None
    test: TTest | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """What differs: ``settings`` in the configs, ``surroundings`` beside them, and the results.

    ``how`` says which seeds were compared, and how.
    """

    how: str
    settings: tuple[str, ...]
    surroundings: tuple[str, ...]
    results: tuple[Result, ...]


def compare_runs(one: Path, other: Path) -> Comparison:
    """Compare two finished runs, or two sets of runs that differ in the seed alone.

    A set is a folder of such runs, or ``RUNS/SETTING`` of a sweep: its runs ``RUNS/SETTING,seed=*``.

    Seeds that both sides have are compared in pairs (a paired t-test); with fewer than two of them, and
    two runs on either side, by Welch's test; else there is a difference and no test.

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
    results = []
    for metric in _metrics(ours[0], theirs[0]):
        mine, yours = (
            [number for run in runs if (number := _number(run, metric)) is not None]
            for runs in (ours, theirs)
        )
        whole = len(mine) == len(ours) and len(yours) == len(theirs)
        if whole or (metric.startswith((*JUDGED, CLOSED_FORM)) and not (mine and yours)):
            results.append(_result(metric, mine, yours, paired))
    return Comparison(
        how=_how([list(side) for side in sides], paired),
        settings=tuple(differences(_config(ours[0]), _config(theirs[0])).values()),
        surroundings=tuple(_surroundings(ours[0], theirs[0])),
        results=tuple(results),
    )


def _result(metric: str, ours: Sequence[float], theirs: Sequence[float], paired: bool) -> Result:
    one, other, test = spread(ours), spread(theirs), None
    if one is None or other is None:
        return Result(metric=metric, one=one, other=other, difference=None, test=None)
    if paired:
        test = paired_t(ours, theirs)
    elif min(one.n, other.n) > 1:
        test = welch_t(ours, theirs)
    return Result(metric=metric, one=one, other=other, difference=other.mean - one.mean, test=test)


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


def _metrics(one: Run, other: Run) -> list[str]:
    """Return the names of what is compared: closed forms and test results of either, losses, space, cost."""
    of_ridge = dict.fromkeys(
        f"{CLOSED_FORM}/{name}"
        for run in (one, other)
        for name in run.table(CLOSED_FORM)
        if name in ("id_test_accuracy", "ood_test_accuracy")
    )
    numbers = [
        name for run in (one, other) for name, value in run.summary.items() if isinstance(value, int | float)
    ]
    results = dict.fromkeys(n for n in numbers if n.startswith(JUDGED) and not n.endswith(CHOSEN_ON_TEST))
    losses = dict.fromkeys(name for line in one.history for name in line if name.startswith("loss_"))
    space = [f"space/{s}/{n}" for s in one.table("space") for n in one.table("space", s) if n != "images"]
    return [*of_ridge, *results, *losses, *space, "seconds", "images_per_s", MEMORY]


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
