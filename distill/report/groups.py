"""Runs that differ in nothing but the seed are one group; what else differs names the groups."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distill.config import LOSS_TERMS
from distill.report.collect import TEACHER, Run, judged_differences
from distill.spread import Spread, spread
from distill.sweep.plan import SEED

WEIGHTS = tuple(f"loss.{name}" for name in LOSS_TERMS)
# No settings, but as able to change a result as any: the teacher's rows, and the data as a whole.
CACHE, DATA, TEACHERS = "cache", "data", "teachers"
CLOSED_FORM, HEAD_ONLY = "closed_form", "train.head_only"
# What decides how well a teacher classifies, and where a summary has that.
OF_TEACHER = (CACHE, DATA, "text", "robotics.negative_text")


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

    def numbers(self, *names: str) -> list[float]:
        """Return one number a run from the summary, by the names that lead to it, where it has one."""
        return [number for run in self.runs if (number := run.number(*names)) is not None]

    def by_seed(self, *names: str) -> dict[Any, float]:
        """Return :meth:`numbers` by the seed of their run."""
        numbers = ((run.seed, run.number(*names)) for run in self.runs)
        return {seed: number for seed, number in numbers if number is not None}

    def spread(self, *names: str) -> Spread | None:
        """Return mean and deviation of :meth:`numbers` over the seeds."""
        return spread(self.numbers(*names))

    def gap(self, metric: str) -> Spread | None:
        """Return how many points the students are below the teacher, over the seeds."""
        pairs = [(run.number(TEACHER, metric), run.number(metric)) for run in self.runs]
        return spread([teacher - own for teacher, own in pairs if teacher is not None and own is not None])


def groups_of(runs: Sequence[Run]) -> tuple[tuple[str, ...], tuple[Group, ...]]:
    """Return the names of the settings that differ, but for the seed, and the groups by them."""
    columns = differing(runs)
    by_values: dict[tuple[str, ...], list[Run]] = {}
    for run in runs:
        by_values.setdefault(tuple(written(value_of(run, name)) for name in columns), []).append(run)
    groups = []
    for number, members in enumerate(by_values.values()):
        first: dict[str, Run] = {}  # of every seed
        for run in members:
            first.setdefault(str(run.seed), run)
        values = {name: value_of(members[0], name) for name in columns}
        groups.append(
            Group(
                number=number,
                label=_label(members, values),
                values=values,
                runs=tuple(sorted(first.values(), key=lambda run: (not isinstance(run.seed, int), run.seed))),
                repeated=tuple(run for run in members if run not in first.values()),
            )
        )
    labels = [group.label for group in groups]
    for i, group in enumerate(groups):  # paths that end alike: what is left out tells them apart
        if labels.count(group.label) > 1:
            groups[i] = replace(group, label=f"{group.label} ({group.runs[0].name})")
    return columns, tuple(groups)


def _label(members: Sequence[Run], values: dict[str, Any]) -> str:
    points = {run.point for run in members}
    if len(points) == 1 and (point := points.pop()):
        # One setting of a sweep is several groups where its runs are of other data.
        return f"{point}, {DATA}={values[DATA]}" if DATA in values else point
    return label_of(values, members[0].settings) or members[0].name


@dataclass(frozen=True, kw_only=True)
class TeacherRuns:
    """Runs that were measured beside one teacher: its cache and the texts that classify are one."""

    label: str
    runs: tuple[Run, ...]

    def spread(self, *names: str) -> Spread | None:
        """Return the teacher's number, which is the same of all runs: learnt prompts are the student's."""
        numbers = (run.number(*names) for run in self.runs)
        # Another machine's last digits make no other number.
        return spread(sorted({round(number, 6) for number in numbers if number is not None}))


def teachers_of(groups: Sequence[Group]) -> list[TeacherRuns]:
    """Return the teachers that runs were measured beside, each called by what sets it apart."""
    members: dict[tuple[Any, ...], list[Run]] = {}
    for run in (run for group in groups for run in group.runs):
        if run.table(TEACHER):
            members.setdefault(tuple(value_of(run, name) for name in OF_TEACHER), []).append(run)
    differ = differing([runs[0] for runs in members.values()], OF_TEACHER)
    teachers = []
    for runs in members.values():
        apart = (f"{name}={written(value_of(runs[0], name)):.24}" for name in differ)
        teachers.append(TeacherRuns(label=", ".join(["teacher", *apart]), runs=tuple(runs)))
    return teachers


def closed_forms_of(groups: Sequence[Group]) -> list[tuple[str, Group]]:
    """Return the heads by ridge that runs have beside their own, each once: a label, and a group that has it.

    A run that is a closed form and nothing else is its own row.
    """
    members: dict[tuple[Any, ...], list[Group]] = {}
    for group in groups:
        told = [run.table(CLOSED_FORM) for run in group.runs if run.settings.get(HEAD_ONLY) != "closed-form"]
        numbers = {tuple((n, v) for n, v in one.items() if n.endswith("_accuracy")) for one in told if one}
        if numbers:
            members.setdefault(tuple(sorted(numbers)), []).append(group)
    labels = [
        first.label + (f" and {len(others)} more" if others else "") for first, *others in members.values()
    ]
    own = [f" of {label}" if len(members) > 1 else "" for label in labels]
    return [(f"closed form{name}", first) for name, (first, *_) in zip(own, members.values(), strict=True)]


def differing(runs: Sequence[Run], names: Sequence[str] = ()) -> tuple[str, ...]:
    """Return what of some names runs differ in; of no names, all settings but the seed, cache and data."""
    names = names or [*dict.fromkeys(n for run in runs for n in run.settings if n != SEED), CACHE, DATA]
    found = tuple(n for n in names if len({written(value_of(run, n)) for run in runs}) > 1)
    told = {(written(value_of(run, TEACHERS)), written(value_of(run, CACHE))) for run in runs}
    # A cache's fingerprint is that of the teachers that a run learns from: where these tell it, they do.
    one_each = TEACHERS in names and len(told) == len({teachers for teachers, _ in told})
    return tuple(n for n in found if n != CACHE or not one_each)


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


def shortened_paths(text: str) -> str:
    """Return a text whose paths have their last two parts alone: where a folder lies says little of a run."""
    return re.sub(r"(?:~|\.{1,2})?(?:/[^\s/,]+)+(?=/[^\s/,]+/[^\s/,]+)", "…", text)


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
            parts.append(f"{last if short.count(last) == 1 else name}={shortened_paths(written(value))}")
    return ", ".join(parts)


def judged_alike(groups: Sequence[Group]) -> bool:
    """Say whether the runs of all groups were judged on the same images."""
    return not any(judged_differences(group.runs[0], groups[0].runs[0]) for group in groups)
