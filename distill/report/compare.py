"""``distill compare``: what differs between two runs, or between two sets of runs over seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, nearest_names
from distill.config import RunConfig
from distill.report.collect import CONFIG, Run, collect, data_differences, judged_differences
from distill.report.groups import SEED, differing
from distill.report.statistics import TTest, paired_t, welch_t
from distill.report.tables import CHOSEN_ON_TEST
from distill.settings import differences, from_toml, with_part
from distill.spread import Spread, spread

LAST_EPOCHS = 5


@dataclass(frozen=True, kw_only=True)
class Result:
    """One metric of both sides; ``difference`` is other less one. ``test`` is None without several seeds."""

    metric: str
    one: Spread
    other: Spread
    difference: float
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

    def to_json(self) -> dict[str, Any]:
        """Return all of it as plain values."""
        return asdict(self)


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
    runs = [list(side.values()) for side in sides]
    if runs[0][0].robotics != runs[1][0].robotics:
        raise UserError(f"one of {one} and {other} is of episodes", fix="compare runs of one kind.")
    results = []
    for metric in _metrics(runs[0][0]):
        found = [[_number(run, metric) for run in side] for side in runs]
        ours, theirs = ([value for value in side if value is not None] for side in found)
        complete = len(ours) == len(runs[0]) and len(theirs) == len(runs[1])
        mine, yours = spread(ours), spread(theirs)
        if complete and mine is not None and yours is not None:
            results.append(
                Result(
                    metric=metric,
                    one=mine,
                    other=yours,
                    difference=yours.mean - mine.mean,
                    test=_test(ours, theirs, paired),
                )
            )
    return Comparison(
        how=_how([list(side) for side in sides], paired),
        settings=tuple(_settings(runs[0][0], runs[1][0])),
        surroundings=tuple(_surroundings(runs[0][0], runs[1][0])),
        results=tuple(results),
    )


def _side(path: Path) -> dict[Any, Run]:
    runs = collect(path).finished if path.is_dir() else _of_point(path)
    if not runs:
        raise UserError(f"{path} holds no finished run", fix="finish one: its command with --resume.")
    differ = differing(runs)
    if differ:
        other = next((run for run in runs if run.data != runs[0].data), runs[0])
        data = data_differences(other, runs[0], here=f"in {other.name}", there=f"in {runs[0].name}")
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
    found = collect(path.parent).finished if path.parent.is_dir() else ()
    mine = tuple(run for run in found if run.path.parent == path.parent and run.point == path.name)
    if not mine:
        points = dict.fromkeys(run.point for run in found if run.point)
        raise UserError(
            f"{path} is no run's folder, and {path.parent} has no finished run of that setting",
            fix=f"{nearest_names(path.name, points)}give a run, or RUNS/SETTING of a sweep"
            f"{': ' + ', '.join(list(points)[:5]) if points else ''}.",
        )
    return mine


def _test(ours: Sequence[float], theirs: Sequence[float], paired: bool) -> TTest | None:
    if paired:
        return paired_t(ours, theirs)
    return welch_t(ours, theirs) if min(len(ours), len(theirs)) > 1 else None


def _how(seeds: Sequence[Sequence[Any]], paired: bool) -> str:
    said = [", ".join(map(str, side)) for side in seeds]
    if paired:
        return f"paired t-test over the seeds {said[0]}"
    if min(map(len, seeds)) > 1:
        return f"Welch's t-test of the seeds {said[0]} and {said[1]}"
    return f"seeds {said[0]} and {said[1]}: no test without several seeds on either side"


def _metrics(run: Run) -> list[str]:
    """Return the names of what is compared: test results, training losses, space, cost."""
    judged = [name for name, value in run.summary.items() if isinstance(value, int | float)]
    results = [n for n in judged if n.startswith(("id_", "ood_", "all")) and not n.endswith(CHOSEN_ON_TEST)]
    losses = dict.fromkeys(name for line in run.history for name in line if name.startswith("loss_"))
    space = [f"space/{split}/{name}" for split, found in _of(run, "space").items() for name in found]
    space = [name for name in space if not name.endswith("/images")]
    return [*results, *losses, *space, "seconds", "images_per_s", "peak_memory_GB"]


def _number(run: Run, metric: str) -> float | None:
    if metric.startswith("loss_"):
        found = [line[metric] for line in run.history[-LAST_EPOCHS:] if metric in line]
        return sum(found) / len(found) if found else None
    if metric == "peak_memory_GB":
        held = _of(run, "peak_memory_bytes").get("host")
        return held / 1e9 if isinstance(held, int) else None
    value: Any = run.summary
    for name in metric.split("/"):
        value = value.get(name) if isinstance(value, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _of(run: Run, name: str) -> dict[str, Any]:
    found = run.summary.get(name)
    return found if isinstance(found, dict) else {}


def _settings(one: Run, other: Run) -> list[str]:
    return differences(_config(one), _config(other))


def _config(run: Run) -> RunConfig:
    config = from_toml(run.config, where=str(run.path / CONFIG))
    return with_part(config, "train", seed=0)


def _surroundings(one: Run, other: Run) -> list[str]:
    """Return what else differs that can change a number: the data, the cache, versions, hardware."""
    lines = _data(one, other)
    for name in ("cache_fingerprint", "versions", "hardware"):
        mine, yours = one.summary.get(name), other.summary.get(name)
        if mine != yours:
            lines.append(f"{name}: {mine} -> {yours}")
    return lines


def _data(one: Run, other: Run) -> list[str]:
    """Return what separates the data of both sides; that other images were judged comes first."""
    words = {"here": "in the second", "there": "in the first"}
    lines = [f"data: {line}" for line in data_differences(other, one, **words)]
    if judged_differences(other, one):
        lines.insert(0, "the results are not comparable: they are of other test images")
    return lines
