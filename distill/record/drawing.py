"""Figures as files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import replacing

# Inches that labels and titles take: matplotlib would find them out by drawing everything twice.
LEFT, RIGHT, BOTTOM, TOP = 0.85, 0.15, 0.55, 0.45


@contextmanager
def drawing(path: Path, size: tuple[float, float], *, columns: int = 1) -> Iterator[tuple[Any, Any]]:
    """Lend a figure and its axes, and write it as a PNG, whole or not at all.

    It is drawn by matplotlib's own defaults: a ``matplotlibrc`` that lies in the working folder may have its
    texts set by a program.
    """
    from matplotlib import style  # here, because it takes a second
    from matplotlib.figure import Figure  # no pyplot: its backend is a notebook's own

    with style.context("default"):
        figure = Figure(figsize=size)
        axes = figure.subplots(1, columns)
        _place(figure, size, columns)
        yield figure, axes
        with replacing(path) as temporary:
            figure.savefig(temporary, format="png", dpi=120)


def _place(figure: Any, size: tuple[float, float], columns: int) -> None:
    width, height = size
    each = (width - columns * (LEFT + RIGHT)) / columns
    figure.subplots_adjust(
        left=LEFT / width,
        right=1 - RIGHT / width,
        bottom=BOTTOM / height,
        top=1 - TOP / height,
        wspace=(LEFT + RIGHT) / each,
    )
