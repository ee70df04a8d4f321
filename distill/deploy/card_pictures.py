"""What a model card shows as a picture: the reliability diagram."""

from __future__ import annotations

from pathlib import Path

from distill.judge.calibration import Calibration
from distill.record.drawing import drawing

RELIABILITY = "reliability.png"


def draw_reliability(folder: Path, calibration: Calibration) -> None:
    """Draw how often answers of some certainty are right, of every test split among its own classes.

    A mark's area is the share of the images; where no split has several classes, among all of the data.
    """
    splits = calibration.splits or calibration.among_all
    with drawing(folder / RELIABILITY, (4.8, 4.4)) as (figure, axes):
        axes.plot([0, 100], [0, 100], linestyle="--", linewidth=1, color="grey")
        for name, one in splits.items():
            sure, right = ([100 * getattr(b, of) for b in one.bins] for of in ("confidence", "accuracy"))
            (line,) = axes.plot(sure, right, linewidth=1, alpha=0.5, label=f"{name}, ECE {one.ece:.1f}%")
            sizes = [400 * b.images / one.images for b in one.bins]
            axes.scatter(sure, right, s=sizes, alpha=0.5, color=line.get_color())
        axes.set(xlim=(0, 100), ylim=(0, 100))
        axes.set(xlabel="probability of the answer (%)", ylabel="answers that are right (%)")
        axes.grid(alpha=0.3)
        axes.legend(loc="upper left")
        figure.suptitle("Reliability")
