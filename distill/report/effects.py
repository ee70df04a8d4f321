"""A grid of settings: what each of its factors does by itself, and maps of two factors at once."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

from distill.report.collect import natural
from distill.report.differences import Compared, Measure, compared, measures
from distill.report.groups import CACHE, DATA, Group, written
from distill.report.tables import Cell, Row, Table, mean_cell
from distill.report.tasks import Part
from distill.spread import Spread, spread

# Steps of colour of a map, from its lowest to its highest mean.
STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Factor:
    """A setting of a grid and its values in order."""

    name: str
    values: tuple[str, ...]

    @property
    def called(self) -> str:
        """The last part of its name."""
        return self.name.rpartition(".")[2]


@dataclass(frozen=True, kw_only=True)
class MapCell:
    """The mean of the settings that have two values; ``step`` is its colour, ``mark`` as of a cell."""

    text: str
    step: int
    mark: str = ""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """Means of a measure by the values of two factors, over all others: a row a value of ``down``."""

    measure: Measure
    down: Factor
    across: Factor
    cells: tuple[tuple[MapCell, ...], ...]


def factors(part: Part) -> tuple[Factor, ...]:
    """Return the factors of a grid: two settings or more of which every combination is there, once.

    Empty where the groups are no such grid, or were not made from and judged on the same data.
    """
    names = part.settings
    if len(names) < 2 or DATA in names or CACHE in names:
        return ()
    found = tuple(Factor(name=name, values=_values(part.groups, name)) for name in names)
    whole = math.prod(len(factor.values) for factor in found) == len(part.groups)
    return found if whole else ()


def _values(groups: Sequence[Group], name: str) -> tuple[str, ...]:
    return tuple(sorted(dict.fromkeys(written(group.values[name]) for group in groups), key=natural))


def main_effects(part: Part, grid: Sequence[Factor]) -> list[Table]:
    """Return a table a factor: the mean at every value over all the others, and its span.

    The deviation is over the seeds, of the means of each.
    """
    asked = measures(part)
    tables = []
    for factor in grid:
        columns = [(measure, _effects(part, factor, measure)) for measure in asked]
        rows = [
            Row(head=f"{factor.called} = {value}", cells=tuple(_effect_cell(m, e[i]) for m, e in columns))
            for i, value in enumerate(factor.values)
        ]
        spans = [
            f"{measure.called} {span:.{measure.digits}f}"
            for measure, effects in columns
            if (span := _span(effects)) is not None
        ]
        heads = (factor.name, *(measure.heading for measure in asked))
        note = f"highest less lowest: {', '.join(spans)}"
        tables.append(Table(title=f"Effect of {factor.name}", columns=heads, rows=tuple(rows), note=note))
    return tables


def _effects(part: Part, factor: Factor, measure: Measure) -> list[Spread | None]:
    return [
        _over([group for group in part.groups if written(group.values[factor.name]) == value], measure)
        for value in factor.values
    ]


def _over(groups: Sequence[Group], measure: Measure) -> Spread | None:
    """Return the mean over some groups, a number a seed that all of them have."""
    sides = [side for group in groups if (side := group.by_seed(*measure.path))]
    common = [seed for seed in sides[0] if all(seed in side for side in sides)] if sides else []
    if common:
        return spread([statistics.fmean(side[seed] for side in sides) for seed in common])
    return spread([statistics.fmean([n for side in sides for n in side.values()])]) if sides else None


def _effect_cell(measure: Measure, value: Spread | None) -> Cell:
    return mean_cell(value, measure.digits)


def _span(effects: Sequence[Spread | None]) -> float | None:
    means = [one.mean for one in effects if one is not None]
    return max(means) - min(means) if means else None


def heat_maps(part: Part, grid: Sequence[Factor]) -> list[list[HeatMap]]:
    """Return every pair of factors, of the largest effects first: a map a measure that is an accuracy."""
    asked = measures(part)[:2]
    if not asked:
        return []
    size = {factor.name: _span(_effects(part, factor, asked[0])) or 0.0 for factor in grid}
    pairs = sorted(combinations(grid, 2), key=lambda pair: -sum(size[factor.name] for factor in pair))
    return [[_heat_map(part, measure, *pair, whole=len(grid) == 2) for measure in asked] for pair in pairs]


def _heat_map(part: Part, measure: Measure, down: Factor, across: Factor, *, whole: bool) -> HeatMap:
    told = compared(part, measure) if whole else None
    table: list[list[tuple[Spread | None, str]]] = []
    for row in down.values:
        line = []
        for column in across.values:
            wanted = {down.name: row, across.name: column}
            groups = [group for group in part.groups if _has(group.values, wanted)]
            line.append((_over(groups, measure), _mark(groups, told)))
        table.append(line)
    means = [value.mean for line in table for value, _ in line if value is not None]
    low, high = (min(means), max(means)) if means else (0.0, 0.0)
    cells = tuple(
        tuple(
            MapCell(
                text=mean_cell(value, measure.digits).text,
                step=0
                if value is None or high == low
                else round((STEPS - 1) * (value.mean - low) / (high - low)),
                mark=mark,
            )
            for value, mark in line
        )
        for line in table
    )
    return HeatMap(measure=measure, down=down, across=across, cells=cells)


def _has(values: dict[str, Any], wanted: dict[str, str]) -> bool:
    return all(written(values[name]) == value for name, value in wanted.items())


def _mark(groups: Sequence[Group], told: Compared | None) -> str:
    if told is None or told.alike is None or len(groups) != 1:
        return ""
    if groups[0].number == told.best.number:
        return "best"
    return "alike" if groups[0] in told.alike else ""
