"""Draw the main results from what is kept of them, the last run of each: one PNG each, 900 pixels wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from cache.runtime.atomic_files import replacing

# Okabe and Ito's: told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
Rows = Sequence[Mapping[str, Any]]


def draw_input(axes: Axes, rows: Rows) -> str:
    """Draw images/s of every way as bars, the slowest on top, and return the title."""
    rates = {row["way"]: row["images/s"] for row in rows}
    order = sorted(rates, key=rates.__getitem__, reverse=True)
    colours = [GREY if name in ("files", "webdataset") else BLUE for name in order]
    _bars(axes, {name: rates[name] for name in order}, colours, "{:,.0f}")
    axes.set(xscale="log", xlabel="images/s (log axis)")
    axes.set_xlim(min(rates.values()) / 3, max(rates.values()) * 3)
    return "Where training images come from"


def draw_ablations(axes: Axes, rows: Rows) -> str:
    """Draw seconds over N, three lines, and return the title; a hollow point was not run."""
    counts = [row["N"] for row in rows]
    lines = {
        "C: teacher in the loop": (ORANGE, "s", "N runs, teacher in the loop"),
        "A: one cache, separate runs": (BLUE, "o", "one cache, N separate runs"),
        "B: one cache, together": (GREEN, "^", "one cache, N students together"),
    }
    for way, (colour, marker, label) in lines.items():
        axes.plot(counts, [row[way] for row in rows], color=colour, linewidth=1.8, label=label)
        for row in rows:
            hollow = way.startswith("C") and row["C is"] != "measured"
            face = "white" if hollow else colour
            axes.plot(row["N"], row[way], marker, color=colour, markersize=7, markerfacecolor=face)
    axes.set(xscale="log", yscale="log", xlabel="number of ablations N", ylabel="wall-clock seconds")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    if any(row["C is"] != "measured" for row in rows):
        axes.plot([], [], "s", color=ORANGE, markerfacecolor="white", label="its one run, times N")
    axes.legend(frameon=False)
    return "The cost of N ablations"


def draw_step(axes: Axes, rows: Rows) -> str:
    """Draw images/s of the three steps as bars, and return the title."""
    about = rows[0]["teacher, precision, batch"]
    colours = {"teacher in the loop": ORANGE, "from the cache": BLUE, "plain supervised": GREY}
    rates = {way: int(about.split(", ")[-1]) / rows[0][way] for way in colours}
    _bars(axes, rates, list(colours.values()), "{:,.1f}")
    axes.set(xlabel="images/s", xlim=(0, 1.15 * max(rates.values())))
    return f"A training step of a ResNet-18; teacher, precision, batch: {about}"


def _bars(axes: Axes, values: Mapping[str, float], colours: Sequence[str], form: str) -> None:
    drawn = axes.barh(list(values), list(values.values()), color=colours, height=0.62)
    axes.bar_label(drawn, [form.format(value) for value in values.values()], padding=4)
    axes.grid(alpha=0.3, axis="x")


DRAWINGS: dict[str, tuple[str, Callable[[Axes, Rows], str]]] = {
    "input": ("input", draw_input),
    "ablations": ("ablations", draw_ablations),
    "step": ("teacher_in_loop", draw_step),
}


def draw_all(runs: Mapping[str, Sequence[Mapping[str, Any]]], machines: Mapping[str, str], out: Path) -> None:
    """Draw every picture; ``runs`` are those that are kept, by their benchmark's name."""
    for picture, (name, drawing) in DRAWINGS.items():
        last = runs[name][-1]
        with pyplot.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
            figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained", facecolor="white")
            title = drawing(axes, last["rows"])
            figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
            about = f"{machines[last['machine']]}, {last['date']}"
            axes.set_title(about, fontsize=9.5, color="#555555", loc="left")
            with replacing(out / f"{picture}.png") as temporary:
                figure.savefig(temporary, format="png", dpi=100)
            pyplot.close(figure)
