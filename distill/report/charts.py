"""Charts as inline SVG. Every series is one stop of the keyboard; the page's script names its points.

A point's place and numbers go to the script as data (:attr:`Chart.data`); without the script the chart is
still whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape
from matplotlib.ticker import MaxNLocator

# Okabe and Ito's palette has 8 colours; a dash and a mark tell the groups beyond them apart.
COLOURS, MARKS = 8, 4
# A five-pointed star from its upper tip on.
STAR = "l2 5.6 6 .2-4.700 3.600 1.700 5.700-5-3.400-5 3.400 1.700-5.700-4.700-3.600 6-.2z"
WIDTH, HEIGHT = 420, 290
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 14, 48


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
class Chart:
    """A drawn chart: its SVG, and what the script needs to name its points."""

    name: str
    title: str
    svg: Markup
    data: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class _Axes:
    x: tuple[float, float]
    y: tuple[float, float]

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / (self.x[1] - self.x[0])
        up = (y - self.y[0]) / (self.y[1] - self.y[0])
        return (
            round(LEFT + across * (WIDTH - LEFT - RIGHT), 1),
            round(HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM), 1),
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
    x_ticks = _ticks(series, "x", "x_spread", whole=whole_x)
    y_ticks = _ticks(series, "y", "spread")
    axes = _Axes(x=(x_ticks[0], x_ticks[-1]), y=(y_ticks[0], y_ticks[-1]))
    shapes = Markup("").join(_series(one, i, axes, lines=lines) for i, one in enumerate(series))
    svg = Markup(
        '<svg class="chart" id="{name}" viewBox="0 0 {w} {h}" role="group" '
        'aria-label="{title}: {y} over {x}">'
        "{frame}{shapes}</svg>"
    ).format(
        name=name,
        w=WIDTH,
        h=HEIGHT,
        title=title,
        x=x_name,
        y=y_name,
        frame=_frame(axes, x_ticks, y_ticks, x_name, y_name),
        shapes=shapes,
    )
    data = {
        "x": x_name,
        "y": y_name,
        "series": [{"label": one.label, "points": [_point(p, axes) for p in one.points]} for one in series],
    }
    return Chart(name=name, title=title, svg=svg, data=data)


def _point(point: Point, axes: _Axes) -> list[Any]:
    """Return [place x, place y, x, y, deviation of y, note] as the script reads it."""
    spread = None if point.spread is None else _short(point.spread)
    return [*axes.place(point.x, point.y), _short(point.x), _short(point.y), spread, point.note]


def _ticks(series: Sequence[Series], name: str, spread: str, *, whole: bool = False) -> list[float]:
    reach = []
    for point in (point for one in series for point in one.points):
        value, around = getattr(point, name), getattr(point, spread) or 0.0
        reach += [value - around, value + around]
    low, high = min(reach), max(reach)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return [
        float(tick)
        for tick in MaxNLocator(nbins=5, integer=whole, steps=[1, 2, 5, 10]).tick_values(low, high)
    ]


def _frame(axes: _Axes, xs: Sequence[float], ys: Sequence[float], x_name: str, y_name: str) -> Markup:
    floor, roof = HEIGHT - BOTTOM, TOP
    parts = []
    for tick in ys:
        _, at = axes.place(axes.x[0], tick)
        parts.append(f'<path class="grid" d="M{LEFT} {at}H{WIDTH - RIGHT}"/>')
        parts.append(f'<text class="tick end" x="{LEFT - 6}" y="{at + 4}">{_short(tick)}</text>')
    for tick in xs:
        at, _ = axes.place(tick, axes.y[0])
        parts.append(f'<path class="grid" d="M{at} {floor}V{roof}"/>')
        parts.append(f'<text class="tick middle" x="{at}" y="{floor + 17}">{_short(tick)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(f'<text class="axis middle" x="{middle}" y="{HEIGHT - 8}">{escape(x_name)}</text>')
    height = (floor + roof) / 2
    turned = f'x="14" y="{height}" transform="rotate(-90 14 {height})"'
    parts.append(f'<text class="axis middle" {turned}>{escape(y_name)}</text>')
    return Markup("").join(Markup(part) for part in parts)


def _series(one: Series, number: int, axes: _Axes, *, lines: bool) -> Markup:
    places = [axes.place(point.x, point.y) for point in one.points]
    inside = "".join(_band(one, axes) + _line(places) if lines else _crosses(one, axes))
    if not lines or len(places) == 1:
        inside += "".join(mark(x, y, one.style) for x, y in places)
    return Markup(
        '<g class="series {style}" tabindex="0" role="img" data-series="{number}" aria-label="{label}">'
    ).format(style=style_of(one.style), number=number, label=_said(one)) + Markup(f"{inside}</g>")


def _said(one: Series) -> str:
    last = one.points[-1]
    around = "" if last.spread is None else f" ± {_short(last.spread)}"
    return f"{one.label}: {_short(last.x)}, {_short(last.y)}{around}"


def style_of(style: int | None) -> str:
    """Return the class names of a group's colour and dash; the teacher has its own."""
    return "teacher" if style is None else f"c{style % COLOURS} d{style // COLOURS % MARKS}"


def _line(places: Sequence[tuple[float, float]]) -> str:
    return f'<path class="line" d="M{"L".join(f"{x} {y}" for x, y in places)}"/>'


def _band(one: Series, axes: _Axes) -> str:
    if len(one.points) < 2 or any(point.spread is None for point in one.points):
        return ""
    over = [axes.place(p.x, p.y + (p.spread or 0)) for p in one.points]
    under = [axes.place(p.x, p.y - (p.spread or 0)) for p in reversed(one.points)]
    return f'<path class="band" d="M{"L".join(f"{x} {y}" for x, y in [*over, *under])}Z"/>'


def _crosses(one: Series, axes: _Axes) -> str:
    parts = []
    for p in one.points:
        x, y = axes.place(p.x, p.y)
        if p.spread is not None:
            low, high = (axes.place(p.x, p.y + sign * p.spread)[1] for sign in (-1, 1))
            parts.append(f'<path class="cross" d="M{x} {low}V{high}"/>')
        if p.x_spread is not None:
            low, high = (axes.place(p.x + sign * p.x_spread, p.y)[0] for sign in (-1, 1))
            parts.append(f'<path class="cross" d="M{low} {y}H{high}"/>')
    return "".join(parts)


def mark(x: float, y: float, style: int | None) -> str:
    """Return a group's mark at a place: circle, square, triangle, diamond in turn; a star for the teacher."""
    shapes = {
        0: f'<circle class="mark" cx="{x}" cy="{y}" r="5"/>',
        1: f'<path class="mark" d="M{x - 4.5} {y - 4.5}h9v9h-9z"/>',
        2: f'<path class="mark" d="M{x} {y - 6}l6 10.5h-12z"/>',
        3: f'<path class="mark" d="M{x} {y - 6.5}l6.5 6.5l-6.5 6.5l-6.5 -6.5z"/>',
    }
    if style is None:
        return f'<path class="mark" d="M{x} {y - 8}{STAR}"/>'
    return shapes[(style + style // COLOURS) % MARKS]  # another mark where a colour comes again


def _short(value: float) -> float | int:
    rounded = float(f"{value:.4g}")
    return int(rounded) if rounded.is_integer() else rounded
