"""Draw the benchmarks' main results from their JSON: one PNG each, 900 pixels wide.

    python scripts/plot_benchmarks.py --out scripts/pictures

input.png: where training images come from (bench_input.py). ablations.png: what N ablations cost
(bench_ablations.py). step.png: a training step with and without the teacher (bench_teacher_in_loop.py). What
has no JSON is left out, and said.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, LogLocator, NullLocator

from bench_parts import run
from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError

# Okabe and Ito's: told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#8C8C8C"
WAYS = {
    "teacher in the loop": (ORANGE, "s"),
    "separate runs": (BLUE, "o"),
    "trained together": (GREEN, "^"),
}
LABELS = {
    "teacher in the loop": "N runs, teacher in the loop",
    "separate runs": "one cache, N separate runs",
    "trained together": "one cache, N students together",
}


def draw_input(axes: Axes, found: dict[str, Any]) -> str:
    """Draw images/s of every way as bars, the slowest on top, and return the title."""
    rates = {name: way["images_per_s"] for name, way in found["ways"].items()}
    order = sorted(rates, key=rates.__getitem__, reverse=True)
    colours = [GREY if name in ("files", "webdataset") else BLUE for name in order]
    bars(axes, order, [rates[name] for name in order], colours, "{:,.0f}")
    axes.set(xscale="log", xlabel="images/s (log axis)")
    axes.set_xlim(min(rates.values()) / 3, max(rates.values()) * 3)
    told = found["arguments"]
    return f"Input pipelines at {told['image_size']} px, workers: {told['workers']}"


def draw_ablations(axes: Axes, found: dict[str, Any]) -> str:
    """Draw seconds over N, three lines, and return the title; a hollow point was not run."""
    counts = [int(count) for count in found["counts"]]
    for way, (colour, marker) in WAYS.items():
        seconds = [one["seconds"][way] for one in found["counts"].values()]
        axes.plot(counts, seconds, color=colour, linewidth=1.8, label=LABELS[way])
        for count, spent, one in zip(counts, seconds, found["counts"].values(), strict=True):
            run = way != "teacher in the loop" or one["in_loop_is"] == "measured"
            axes.plot(
                count, spent, marker, color=colour, markersize=7, markerfacecolor=colour if run else "white"
            )
    axes.set(xscale="log", yscale="log", xlabel="number of ablations N", ylabel="wall-clock seconds")
    axes.xaxis.set_major_locator(FixedLocator(counts))
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter("{x:g}")
    axes.grid(alpha=0.3)
    if any(one["in_loop_is"] != "measured" for one in found["counts"].values()):
        axes.plot([], [], "s", color=ORANGE, markerfacecolor="white", label="its one run, times N")
    axes.legend(frameon=False)
    told = found["arguments"]
    return f"The cost of N ablations: {told['arch']}, {told['images']} images, {told['epochs']} epochs"


def draw_step(axes: Axes, found: dict[str, Any]) -> str:
    """Draw images/s of the three steps as bars, and return the title."""
    rates = {name: way["images_per_s"] for name, way in found["ways"].items()}
    order = list(reversed(rates))
    colours = {"plain supervised": GREY, "from the cache": BLUE, "teacher in the loop": ORANGE}
    bars(axes, order, [rates[name] for name in order], [colours[name] for name in order], "{:,.1f}")
    axes.set(xlabel="images/s", xlim=(0, 1.15 * max(rates.values())))
    told = found["arguments"]
    return f"A training step: {told['arch']}, teacher {told['model']}, {told['precision']}"


def bars(axes: Axes, names: list[str], values: list[float], colours: list[str], form: str) -> None:
    """Draw named bars with their numbers beside them."""
    drawn = axes.barh(names, values, color=colours, height=0.62)
    axes.bar_label(drawn, [form.format(value) for value in values], padding=4)
    axes.grid(alpha=0.3, axis="x")


def machine(found: dict[str, Any]) -> str:
    """Return the machine and the day in a line."""
    hardware = found["hardware"]
    where = hardware.get("gpu") or f"{hardware['cores']} cores of {hardware['cpu']}"
    return f"{where}, torch {found['versions']['torch']}, {found['date']}"


DRAWINGS: dict[str, Callable[[Axes, dict[str, Any]], str]] = {
    "input": draw_input,
    "ablations": draw_ablations,
    "step": draw_step,
}

SCRIPTS = {"input": "bench_input.py", "ablations": "bench_ablations.py", "step": "bench_teacher_in_loop.py"}


def draw(name: str, source: Path, out: Path) -> None:
    """Draw one picture from one JSON; UserError where it is not that benchmark's."""
    with pyplot.rc_context({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False}):
        figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained", facecolor="white")
        try:
            found = json.loads(source.read_bytes())
            title, about = DRAWINGS[name](axes, found), machine(found)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{source} is not what {SCRIPTS[name]} writes ({type(error).__name__}: {error})",
                fix=f"give --{name} that script's JSON, or run it again.",
            ) from error
        figure.suptitle(title, fontsize=13, fontweight="bold", x=0.01, ha="left")
        axes.set_title(about, fontsize=9.5, color="#555555", loc="left")
        with replacing(out / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png", dpi=100)
        pyplot.close(figure)


def main() -> None:
    """Parse and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    artifacts = Path("artifacts")
    parser.add_argument("--input", type=Path, default=artifacts / "bench_input.json")
    parser.add_argument("--ablations", type=Path, default=artifacts / "bench_ablations.json")
    parser.add_argument("--step", type=Path, default=artifacts / "bench_teacher_in_loop.json")
    parser.add_argument("--out", type=Path, default=Path("scripts/pictures"))
    args = parser.parse_args()
    if args.out.is_file():
        parser.error(f"--out {args.out} is a file, a folder is expected")
    for name in DRAWINGS:
        source = getattr(args, name)
        if source.is_file():
            draw(name, source, args.out)
            print(args.out / f"{name}.png")
        else:
            print(f"{name}.png is left out: there is no {source}")


if __name__ == "__main__":
    run(main)
