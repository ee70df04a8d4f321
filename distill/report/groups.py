"""Runs that differ in nothing but the seed are one group; what else differs names the groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from distill.config import LOSS_TERMS
from distill.report.collect import Run, judged_differences
from distill.spread import Spread, spread

SEED = "train.seed"
WEIGHTS = tuple(f"loss.{name}" for name in LOSS_TERMS)
# No settings, but as able to change a result as any: the teacher's rows, and the data as a whole.
CACHE, DATA = "cache", "data"
# What decides how well a teacher classifies.
TEACHER_PARTS = (CACHE, DATA, "text", "prompts")
TEACHER_RESULTS = ("teacher_accuracy", "teacher_metrics", "teacher_per_class_accuracy")
SPLITS = {"id_test": "ID", "ood_test": "OOD", "ood_query": "OOD less support", "id_val": "ID set aside"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """The finished runs of one setting, one a seed, in the order of the seeds.

    ``values`` are the settings that differ between groups; ``label`` says them in a few words; ``repeated``
    are further runs of a seed that is there already, which add nothing to a spread.
    """

    number: int
    label: str
    values: dict[str, Any]
    runs: tuple[Run, ...]
    repeated: tuple[Run, ...] = ()

    def numbers(self, metric: str) -> list[float]:
        """Return one number a run from the summary, where it has one."""
        found = (run.summary.get(metric) for run in self.runs)
        return [float(value) for value in found if isinstance(value, int | float)]

    def spread(self, metric: str) -> Spread | None:
        """Return mean and deviation of a metric over the seeds."""
        return spread(self.numbers(metric))

    def gap(self, split: str) -> Spread | None:
        """Return how many points the students are below the teacher on a split, over the seeds."""
        measure = f"{split}_accuracy"
        pairs = [(teacher_of(run, split), run.summary.get(measure)) for run in self.runs]
        return spread([teacher - own for teacher, own in pairs if teacher is not None and own is not None])


def teacher_of(run: Run, split: str) -> float | None:
    """Return the teacher's accuracy on a split, where the run kept it."""
    found = run.summary.get("teacher_accuracy")
    return found.get(split) if isinstance(found, dict) else None


def teacher_number(run: Run, metric: str) -> float | None:
    """Return one of the teacher's numbers, called as the student's, where the run kept it."""
    own = teacher_of(run, metric.removesuffix("_accuracy"))
    found = run.summary.get("teacher_metrics")
    return found.get(metric) if own is None and isinstance(found, dict) else own


def groups_of(runs: Sequence[Run]) -> tuple[tuple[str, ...], tuple[Group, ...]]:
    """Return the names of the settings that differ, but for the seed, and the groups by them."""
    columns = differing(runs)
    found: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        found.setdefault(tuple(written(value_of(run, name)) for name in columns), []).append(run)
    groups = []
    for number, members in enumerate(found.values()):
        kept: dict[str, Run] = {}
        for run in members:
            kept.setdefault(str(run.seed), run)
        values = {name: value_of(members[0], name) for name in columns}
        groups.append(
            Group(
                number=number,
                label=_label(members, values),
                values=values,
                runs=tuple(sorted(kept.values(), key=lambda run: (not isinstance(run.seed, int), run.seed))),
                repeated=tuple(run for run in members if run not in kept.values()),
            )
        )
    return columns, tuple(groups)


def _label(members: Sequence[Run], values: dict[str, Any]) -> str:
    point = _point_of(members)
    if point:  # one setting of a sweep is several groups where its runs are of other data
        return f"{point}, {DATA}={values[DATA]}" if DATA in values else point
    return label_of(values, members[0].settings) or members[0].name


def _point_of(runs: Sequence[Run]) -> str:
    """Return what the sweep calls the settings of some runs; '' where they have no one name."""
    points = {run.point for run in runs}
    return points.pop() if len(points) == 1 else ""


@dataclass(frozen=True, kw_only=True)
class TeacherRuns:
    """Runs that were measured beside one teacher: its cache and the texts that classify are one."""

    label: str
    runs: tuple[Run, ...]


def teachers_of(groups: Sequence[Group]) -> list[TeacherRuns]:
    """Return the teachers that runs were measured beside, each called by what sets it apart."""
    found: dict[tuple[Any, ...], list[Run]] = {}
    for run in (run for group in groups for run in group.runs):
        if _has_teacher(run):
            found.setdefault(tuple(_teacher_parts(run).values()), []).append(run)
    parts = [_teacher_parts(runs[0]) for runs in found.values()]
    differ = [name for name in TEACHER_PARTS if len({written(part[name]) for part in parts}) > 1]
    labels = (
        ", ".join(["teacher", *(f"{name}={written(part[name]):.24}" for name in differ)]) for part in parts
    )
    return [
        TeacherRuns(label=label, runs=tuple(runs)) for label, runs in zip(labels, found.values(), strict=True)
    ]


def _has_teacher(run: Run) -> bool:
    return any(isinstance(run.summary.get(name), dict) and run.summary[name] for name in TEACHER_RESULTS)


def _teacher_parts(run: Run) -> dict[str, Any]:
    settings = (run.settings.get(name) for name in ("text", "prompts.learner"))
    return dict(zip(TEACHER_PARTS, (value_of(run, CACHE), value_of(run, DATA), *settings), strict=True))


def differing(runs: Sequence[Run]) -> tuple[str, ...]:
    """Return the settings in which some of the runs differ, but for the seed; cache and data count as two."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    names.pop(SEED, None)
    return tuple(n for n in [*names, CACHE, DATA] if len({written(value_of(run, n)) for run in runs}) > 1)


def value_of(run: Run, name: str) -> Any:
    """Return what a run has under one of the names that :func:`differing` gives."""
    if name == DATA:
        return run.data
    return run.summary.get("cache_fingerprint") if name == CACHE else run.settings.get(name)


def written(value: Any) -> str:
    """Return a setting's value as a person writes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return ", ".join(written(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return "none" if value in (None, "") else str(value)


def label_of(values: dict[str, Any], settings: dict[str, Any]) -> str:
    """Return differing settings in a few words: losses by their names, others as key=value.

    Where weights of losses differ, every loss that is on is named.
    """
    parts = []
    if any(name in WEIGHTS for name in values):
        weights = {name.removeprefix("loss."): settings.get(name, 0) for name in WEIGHTS}
        on = [name if weight == 1 else f"{weight:g} {name}" for name, weight in weights.items() if weight]
        parts.append(" + ".join(on) or "no loss")
    short = [name.rpartition(".")[2] for name in values]
    for name, value in values.items():
        if name not in WEIGHTS:
            last = name.rpartition(".")[2]
            parts.append(f"{last if short.count(last) == 1 else name}={written(value)}")
    return ", ".join(parts)


def measure_of(runs: Sequence[Run]) -> tuple[str, str]:
    """Return the headline's ending among the metrics, and its name."""
    if any(run.robotics for run in runs):
        return "average_precision", "mean average precision"
    return "accuracy", "macro accuracy"


def judged_alike(groups: Sequence[Group]) -> bool:
    """Say whether the runs of all groups were judged on the same images."""
    return not any(judged_differences(group.runs[0], groups[0].runs[0]) for group in groups)


def judged_splits(runs: Sequence[Run], measure: str) -> list[str]:
    """Return the test splits that some run has a headline of; further heads' SPLIT@TEACHER last."""
    by_class = [run.summary.get("per_class_accuracy") for run in runs]
    judged = {name for found in by_class if isinstance(found, dict) for name in found}
    heads = sorted(name for name in judged if "@" in name and not name.startswith("id_val"))
    names = ("id_test", "ood_test", "ood_query", *heads)
    return [name for name in names if any(f"{name}_{measure}" in run.summary for run in runs)]


def split_label(split: str) -> str:
    """Return how a split is called in a table."""
    name, _, head = split.partition("@")
    return SPLITS.get(name, name) + (f" ({head})" if head else "")
