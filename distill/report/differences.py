"""What settings are compared by, and how each differs from the baseline: numbers and tests, no words."""

from __future__ import annotations

from dataclasses import dataclass

from distill.headline import SET_ASIDE
from distill.report.collect import TEACHER
from distill.report.groups import Group, TeacherRuns, judged_alike
from distill.report.statistics import TTest, alike_best, holm, pooled, t_test
from distill.report.tasks import Part, headings, split_label
from distill.spread import Spread, spread

LOWER_IS_BETTER = ("vlalign",)
# So many settings are drawn where there are many.
FIRST = 5
OF_SPACE = ("image_neighbours_10", "cosine")


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number that settings are compared by: where a summary has it, and how it is called.

    ``unit`` is what a difference is in, ``digits`` how many decimals are told.
    """

    path: tuple[str, ...]
    called: str
    unit: str = " points"
    digits: int = 1

    @property
    def heading(self) -> str:
        """What heads its column."""
        return f"{self.called} (%)" if self.unit else self.called

    def of_group(self, group: Group) -> Spread | None:
        """Return mean and deviation of a group's students."""
        return group.spread(*self.path)

    def of_teacher(self, teacher: TeacherRuns) -> Spread | None:
        """Return the teacher's own number, where it has one."""
        return teacher.spread(TEACHER, *self.path)


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A group less the baseline; ``p_value`` is Holm's, over all groups that could be tested.

    ``test`` is None where a side has one seed.
    """

    group: Group
    points: float
    test: TTest | None
    p_value: float | None


@dataclass(frozen=True, kw_only=True)
class Compared:
    """All groups by one measure.

    ``best`` is the highest mean's group; ``alike`` are the groups that cannot be told from it, None where
    nothing can be said: one seed, or one group. ``differences`` are those of all groups but the baseline.
    """

    measure: Measure
    best: Group
    alike: tuple[Group, ...] | None
    differences: tuple[Difference, ...]

    def of(self, group: Group) -> Difference | None:
        """Return a group's difference, None of the baseline."""
        return next((one for one in self.differences if one.group.number == group.number), None)


def measures(part: Part) -> list[Measure]:
    """Return what a report's answer is about, OOD first, then ID, then both together; else the spaces.

    Of heads of several teachers it is the first's and the mean's, called ``SPLIT@mean``.
    """
    told = [s for s in part.splits if "@" not in s or s.endswith("@mean")]
    order = sorted(told, key=lambda s: (s.startswith(SET_ASIDE), not s.startswith("ood"), "@" in s))
    chosen = []
    for split in order:
        named = headings([*part.task.headline, *part.task.results], [split])
        first = next((m for m in named if any(group.numbers(m) for group in part.groups)), None)
        if first is not None:
            chosen.append(Measure(path=(first,), called=named[first].removesuffix(" (%)")))
    both = headings([r for r in part.task.results if "{split}" not in r[0]], told)
    for metric, heading in both.items():
        if any(group.numbers(metric) for group in part.groups):
            chosen.append(Measure(path=(metric,), called=heading.removesuffix(" (%)")))
    return chosen or _of_space(part)


def _of_space(part: Part) -> list[Measure]:
    """Return what says how near a student is to its teacher where nothing else is judged."""
    spaces = list(dict.fromkeys(split for run in part.counted for split in run.table("space")))
    found = []
    for split in sorted(spaces, key=lambda s: not s.startswith("ood")):
        for name in OF_SPACE:
            path = ("space", split, name)
            if any(group.numbers(*path) for group in part.groups):
                found.append(Measure(path=path, called=f"{split_label(split)}: {name}", unit="", digits=3))
                break
    return found


def compared(part: Part, measure: Measure) -> Compared | None:
    """Compare all groups by one measure; None where no group has it, or they were judged on other images."""
    groups = [group for group in part.groups if group.numbers(*measure.path)]
    if not groups or not judged_alike(groups):
        return None
    sides = [group.by_seed(*measure.path) for group in groups]
    best, alike = alike_best(sides, lower=measure.path[-1] in LOWER_IS_BETTER)
    means = [_mean(group, measure) for group in groups]
    return Compared(
        measure=measure,
        best=groups[best if best >= 0 else means.index(max(means))],
        alike=tuple(groups[i] for i in sorted(alike)) if best >= 0 else None,
        differences=_differences(groups, part.baseline, measure),
    )


def _differences(groups: list[Group], baseline: Group, measure: Measure) -> tuple[Difference, ...]:
    ours = baseline.by_seed(*measure.path)
    others = [group for group in groups if group.number != baseline.number] if ours else []
    sides = [group.by_seed(*measure.path) for group in others]
    within = pooled([ours, *sides])
    tests = [t_test(ours, side, within) for side in sides]
    adjusted = holm([test.p_value if test else None for test in tests])
    return tuple(
        Difference(
            group=group,
            points=test.difference if test else _mean(group, measure) - _mean(baseline, measure),
            test=test,
            p_value=p,
        )
        for group, test, p in zip(others, tests, adjusted, strict=True)
    )


def drawn_first(part: Part) -> list[int]:
    """Return the numbers of the few groups that charts of many begin with: the baseline and the best."""
    asked = measures(part)
    means = {group.number: over.mean for group in part.groups if asked and (over := asked[0].of_group(group))}
    best = sorted(means, key=lambda number: -means[number])[: FIRST - 1]
    return [*dict.fromkeys([part.baseline.number, *best, *range(len(part.groups))])][:FIRST]


def _mean(group: Group, measure: Measure) -> float:
    over = spread(group.numbers(*measure.path))
    assert over is not None  # a group without one is not among the compared
    return over.mean
