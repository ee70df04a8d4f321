"""Where everything of a chart stands: places on the drawing for the page's template, and data for its script.

The template draws all of it as inline SVG, so a chart is whole without the script, which names the points.
Matplotlib's SVG would not do: it carries styles that the page's security policy forbids, and its own colours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.ticker import MaxNLocator

WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 58, WIDTH - 14, 14, HEIGHT - 48
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
    """Points of one colour. ``style`` is the number of its group, None for the teacher."""

    label: str
    points: tuple[Point, ...]
    style: int | None


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
    """A chart; ``x_ticks`` and ``y_ticks`` are (place, number)."""

    name: str
    title: str
    x_name: str
    y_name: str
    x_ticks: tuple[tuple[float, float], ...]
    y_ticks: tuple[tuple[float, float], ...]
    series: tuple[Drawn, ...]

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
            ],
        }


@dataclass(frozen=True, kw_only=True)
class _Axes:
    x: Sequence[float]
    y: Sequence[float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[-1] - self.x[0])
        up = (y - self.y[0]) / (self.y[-1] - self.y[0])
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
    x_name: str,
    y_name: str,
    lines: bool = True,
    whole_x: bool = False,
) -> Chart:
    """Draw series as lines with a band of one standard deviation, or as marks with a cross of it.

    Points are in the units that ``x_name`` and ``y_name`` say; ``whole_x`` has ticks at whole numbers only.
    """
    points = [point for one in series for point in one.points]
    axes = _Axes(
        x=_ticks([(p.x, p.x_spread) for p in points], whole=whole_x),
        y=_ticks([(p.y, p.spread) for p in points]),
    )
    return Chart(
        name=name,
        title=title,
        x_name=x_name,
        y_name=y_name,
        x_ticks=tuple((axes.place(tick, axes.y[0])[0], short(tick)) for tick in axes.x),
        y_ticks=tuple((axes.place(axes.x[0], tick)[1], short(tick)) for tick in axes.y),
        series=tuple(axes.draw(one, line=lines) for one in series),
    )


def _ticks(values: Sequence[tuple[float, float | None]], *, whole: bool = False) -> list[float]:
    """Return ticks around values and their deviations."""
    low = min(value - (spread or 0) for value, spread in values)
    high = max(value + (spread or 0) for value, spread in values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    ticks = MaxNLocator(nbins=5, integer=whole, steps=[1, 2, 5, 10]).tick_values(low, high)
    return [float(tick) for tick in ticks]


def short(value: float) -> float | int:
    """Return a number with four digits, whole where it is."""
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
