"""Where everything of a chart stands: places on the drawing for the page's template, and data for its script.

The template draws all of it as inline SVG, so a chart is whole without the script, on paper, and for who has
a keyboard alone; the script names the points, picks and hides. Looked at instead: uPlot 1.6 (MIT, 51 kB) and
Chart.js 4.6 (MIT, 210 kB) draw on a canvas, which is empty without the script, has one colour scheme in print
and nothing to focus, and have no bands, heat maps or error bars but by plug-ins; Observable Plot 0.6 (ISC,
209 kB, with d3 another 280 kB) draws SVG, but in the browser alone and with styles that the page's security
policy forbids. Each is more than the 300 lines here and in ``chart.html`` and ``script.js``. Matplotlib's SVG
carries such styles too, and its own colours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 64, WIDTH - 14, 14, HEIGHT - 48
Places = tuple[tuple[float, float], ...]


@dataclass(frozen=True, kw_only=True)
class Point:
    """One point of a series; ``spread`` is a standard deviation of y and ``x_spread`` one of x."""

    x: float
    y: float
    spread: float | None = None
    x_spread: float | None = None
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Series:
    """Points of one colour. ``style`` is the number of its group, None for the teacher, -1 for a guide."""

    label: str
    points: tuple[Point, ...]
    style: int | None


@dataclass(frozen=True, kw_only=True)
class Level:
    """A line across at one y, such as chance; ``kind`` is teacher or chance."""

    label: str
    y: float
    kind: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """An axis: its name with the unit, what it may not go beyond, and further numbers that it is to show.

    ``whole`` has ticks at whole numbers only.
    """

    name: str
    low: float = -math.inf
    high: float = math.inf
    within: tuple[float, ...] = ()
    whole: bool = False


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A series on the drawing: a line with the outline of its band, or marks with the ends of crosses."""

    series: Series
    places: Places
    line: bool
    band: Places = ()
    crosses: tuple[Places, ...] = ()

    @property
    def summary(self) -> str:
        """The last point in words, for who cannot see the drawing."""
        last = self.series.points[-1]
        around = "" if last.spread is None else f" ± {short(last.spread)}"
        return f"{self.series.label}: {short(last.x)}, {short(last.y)}{around}"


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart; ``x_ticks``, ``y_ticks`` are (place, number), ``levels`` (place, line). Guides come last."""

    name: str
    title: str
    x_name: str
    y_name: str
    x_ticks: tuple[tuple[float, str], ...]
    y_ticks: tuple[tuple[float, str], ...]
    series: tuple[Drawn, ...]
    levels: tuple[tuple[float, Level], ...] = ()

    @property
    def data(self) -> dict[str, Any]:
        """What the script names points by: [place x, place y, x, y, deviation of y, note] each."""
        return {
            "x": self.x_name,
            "y": self.y_name,
            "series": [
                {
                    "label": one.series.label,
                    "points": [
                        [*at, short(p.x), short(p.y), None if p.spread is None else short(p.spread), p.note]
                        for at, p in zip(one.places, one.series.points, strict=True)
                    ],
                }
                for one in self.series
                if one.series.style != -1
            ],
        }


@dataclass(frozen=True, kw_only=True)
class _Scale:
    """From ``low`` to ``high``, with ticks in it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Return where a value is, 0 to 1; what is outside is at the end."""
        return min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))


@dataclass(frozen=True, kw_only=True)
class _Axes:
    x: _Scale
    y: _Scale

    def place(self, x: float, y: float) -> tuple[float, float]:
        across, up = self.x.share(x), self.y.share(y)
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    def draw(self, series: Series, *, line: bool) -> Drawn:
        points = series.points
        low, high = (tuple(self.place(p.x, p.y + sign * (p.spread or 0)) for p in points) for sign in (-1, 1))
        left, right = (
            tuple(self.place(p.x + sign * (p.x_spread or 0), p.y) for p in points) for sign in (-1, 1)
        )
        whole = len(points) > 1 and all(p.spread is not None for p in points)
        ends = (*zip(low, high, strict=True), *zip(left, right, strict=True))
        return Drawn(
            series=series,
            places=tuple(self.place(p.x, p.y) for p in points),
            line=line,
            band=(*high, *reversed(low)) if line and whole else (),
            crosses=() if line else tuple(pair for pair in ends if pair[0] != pair[1]),
        )


def draw(
    name: str,
    title: str,
    series: Sequence[Series],
    *,
    x: Axis,
    y: Axis,
    lines: bool = True,
    levels: Sequence[Level] = (),
) -> Chart:
    """Draw series as lines with a band of one standard deviation, or as marks with a cross of it.

    Points are in the units that the axes say; a series of style -1 is a line in any case.
    """
    points = [point for one in series for point in one.points]
    axes = _Axes(
        x=_scale(x, [(p.x, p.x_spread) for p in points]),
        y=_scale(y, [*((p.y, p.spread) for p in points), *((level.y, None) for level in levels)]),
    )
    return Chart(
        name=name,
        title=title,
        x_name=x.name,
        y_name=y.name,
        x_ticks=tuple((axes.place(tick, axes.y.low)[0], _tick(tick)) for tick in axes.x.ticks),
        y_ticks=tuple((axes.place(axes.x.low, tick)[1], _tick(tick)) for tick in axes.y.ticks),
        series=tuple(axes.draw(one, line=lines or one.style == -1) for one in series),
        levels=tuple((axes.place(axes.x.low, level.y)[1], level) for level in levels),
    )


def _scale(axis: Axis, values: Sequence[tuple[float, float | None]]) -> _Scale:
    """Return a scale around values and their deviations, within what the axis may show."""
    low = min([*(value - (spread or 0) for value, spread in values), *axis.within])
    high = max([*(value + (spread or 0) for value, spread in values), *axis.within])
    low, high = max(low, axis.low), min(high, axis.high)
    largest = max(abs(low), abs(high))
    if high - low <= 1e-6 * largest:  # one number, but for rounding: it is to stand in the middle
        room = min(largest / 2, max(0.5, largest / 100)) or 0.5
        low, high = max(low - room, axis.low), min(high + room, axis.high)
    ticks = MaxNLocator(nbins=5, integer=axis.whole, steps=[1, 2, 5, 10]).tick_values(low, high)
    digits = 2 - math.floor(math.log10(ticks[1] - ticks[0]))
    # Summed up, 0 is 1.1e-16 or -0, and 100 beyond 100.
    ticks = [round(float(tick), digits) + 0.0 for tick in ticks]
    low, high = max(ticks[0], axis.low), min(ticks[-1], axis.high)
    return _Scale(low=low, high=high, ticks=tuple(tick for tick in ticks if low <= tick <= high))


def _tick(value: float) -> str:
    """Return a number in few characters: 0.0006 as 6e-4, which leaves room for the axis's name."""
    if not 0 < abs(value) < 0.01:
        return f"{value:.4g}"
    number, power = f"{value:.2e}".split("e")
    return f"{float(number):g}e{int(power)}"


def short(value: float) -> float | int:
    """Return a number with four digits, whole where it is."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
