"""What a report says first: what won, by how much over the baseline, how sure that is; or why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from distill.report.differences import Compared, Difference, Measure, compared, measures
from distill.report.groups import Group
from distill.report.statistics import LEVEL, TTest
from distill.report.tasks import Part
from distill.spread import Spread

NAMED = 4
ONE_SEED = (
    "With one seed a setting nothing can be said of how far another would change this: train both with "
    "further seeds (--set train.seed=1)."
)


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One sentence and what it stands on.

    ``sure`` says whether it holds beyond the spread of the seeds, ``differs`` whether it is of a difference.
    """

    lead: str
    why: str
    sure: bool = False
    differs: bool = False


def answers(part: Part) -> list[Answer]:
    """Return a part's answer by each measure, first what counts and differs; empty of nothing judged."""
    told = sorted((_answer(part, measure) for measure in measures(part)), key=lambda one: not one.differs)
    return [replace(one, why=one.why.replace(ONE_SEED, "")) if i else one for i, one in enumerate(told)]


def _answer(part: Part, measure: Measure) -> Answer:
    told = compared(part, measure)
    if told is None:
        return Answer(
            lead=f"{_title(measure)}: these runs cannot be compared.",
            why="They were judged on different test images; see the data below.",
        )
    beside = _teacher(part, measure)
    if len(part.groups) == 1:
        value = _value(measure, measure.of_group(told.best))
        return Answer(
            lead=f"{_title(measure)}: {value}.",
            why=f"{_seeds(told.best)}. There is no other setting to compare with. {beside}".strip(),
        )
    if not told.differences:
        return Answer(
            lead=f"{told.best.label} has {measure.called} {_value(measure, measure.of_group(told.best))}.",
            why=f"{beside} Nothing else was judged by it, or the baseline, {part.baseline.label}, was not.",
        )
    return _of_several(part, told, beside)


def _of_several(part: Part, told: Compared, beside: str) -> Answer:
    measure, baseline = told.measure, part.baseline
    difference = told.of(told.best)
    if difference is None:  # the baseline is the best: how far below is the next?
        difference = max(told.differences, key=lambda one: one.points)
    sure = difference.p_value is not None and difference.p_value < LEVEL
    base = f"the baseline, {baseline.label} ({_value(measure, measure.of_group(baseline))})"
    level = signed(difference.points, measure.digits).strip("0.") == ""
    no_doubt = sure or level or difference.test is None
    doubt = "" if no_doubt else ", which the spread of the seeds explains as well"
    if told.best.number == baseline.number:
        verb = "is not beaten" if sure else "is highest"
        below = "level" if level else f"{_points(measure, -difference.points)} below"
        by = f"the next, {difference.group.label}, is {below}"
        lead = f"{_title(measure)}: {base}, {verb}; {by}"
    elif level:
        called = f"{told.best.label} ({_value(measure, measure.of_group(told.best))})"
        lead = f"{_title(measure)}: {called} is level with {base}"
    else:
        called = f"{told.best.label} ({_value(measure, measure.of_group(told.best))})"
        verb = "is highest" if not sure else "leads" if told.alike else "wins"
        lead = f"{_title(measure)}: {called} {verb}, {_points(measure, difference.points)} above {base}"
    return Answer(
        lead=f"{lead}{doubt}.",
        why=" ".join(filter(None, [tested_words(difference, told), alike_words(part, told), beside])),
        sure=sure,
        differs=True,
    )


def tested_words(difference: Difference, told: Compared) -> str:
    """Return interval, test, n and p of a difference, or why there are none."""
    test = difference.test
    if test is None:
        return ONE_SEED
    digits, tests = told.measure.digits, sum(one.test is not None for one in told.differences)
    adjusted = f" after Holm over {tests} comparisons" if tests > 1 else ""
    interval = f"95% interval {signed(test.low, digits)} to {signed(test.high, digits)}{told.measure.unit}"
    return f"{interval}; {design(test)}; {p_words(difference.p_value)}{adjusted}."


def signed(number: float, digits: int) -> str:
    """Return a difference with its sign, which zero has none of."""
    text = f"{number:+.{digits}f}"
    return text.lstrip("+-") if float(text) == 0 else text


def design(test: TTest) -> str:
    """Return which test it is, of how many numbers."""
    if test.design == "paired":
        return f"t-test paired by seed, n = {test.n[0]}"
    if test.design == "blocks":
        return f"t-test paired by seed with one variance for all settings, n = {test.n[0]}"
    return f"Welch's t-test, n = {test.n[0]} and {test.n[1]}"


def p_words(p_value: float | None) -> str:
    """Return a p-value as it is written."""
    if p_value is None:
        return "no p, as nothing varies"
    return "p < 0.001" if p_value < 0.001 else f"p = {p_value:.3f}"


def alike_words(part: Part, told: Compared) -> str:
    """Return which settings cannot be told from the best; nothing where that is not known, or of two."""
    if told.alike is None or len(part.groups) < 3:
        return ""
    if not told.alike:
        return f"{told.best.label} can be told from every other setting."
    others = f"{len(told.alike)} of the {len(part.groups) - 1} others"
    return f"{others} cannot be told from {told.best.label}: {_named(told.alike)}."


def _named(groups: Sequence[Group]) -> str:
    more = f" and {len(groups) - NAMED} more" if len(groups) > NAMED else ""
    return "; ".join(group.label for group in groups[:NAMED]) + more


def _seeds(group: Group) -> str:
    n = len(group.runs)
    return "One seed: no spread is known" if n == 1 else f"Mean and standard deviation of n = {n} seeds"


def _title(measure: Measure) -> str:
    return measure.called[0].upper() + measure.called[1:]


def _value(measure: Measure, value: Spread | None) -> str:
    if value is None:
        return "not judged"
    around = "" if value.std is None else f" ± {value.std:.{measure.digits}f}"
    return f"{value.mean:.{measure.digits}f}{around}{'%' if measure.unit else ''}"


def _points(measure: Measure, number: float) -> str:
    return f"{number:.{measure.digits}f}{measure.unit}"


def _teacher(part: Part, measure: Measure) -> str:
    """Return the teacher's number, where the runs have one teacher."""
    value = measure.of_teacher(part.teachers[0]) if len(part.teachers) == 1 else None
    return f"The teacher has {_value(measure, value)}." if value is not None else ""
