"""Progress with rate and time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from typing import Protocol, TextIO

import rich.progress
from rich.console import Console

from cache.runtime.errors import printable
from cache.runtime.torchrun import speaks


class Progress(Protocol):
    """What a long piece of work tells whoever watches."""

    def start(self, total: int, what: str | None = None, unit: str | None = None) -> None:
        """``total`` of a ``unit`` are still to be done; ``what`` is done to them. None is what it was."""

    def advance(self, images: int) -> None:
        """``images`` more are done."""

    def note(self, message: str) -> None:
        """Say something worth a line."""


class Silent:
    """A progress that says nothing; also the beginning of one that says little."""

    def start(self, total: int, what: str | None = None, unit: str | None = None) -> None:
        """Say nothing."""

    def advance(self, images: int) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class BarProgress:
    """A rich bar on standard error."""

    def __init__(self, what: str, unit: str = "images") -> None:
        self._unit = unit
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.MofNCompleteColumn(),
            rich.progress.TextColumn("{task.fields[rate]}"),
            rich.progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(what, total=None, rate="")
        self._done, self._began = 0, time.perf_counter()

    def start(self, total: int, what: str | None = None, unit: str | None = None) -> None:
        """Show a bar for ``total`` images."""
        self._done, self._began = 0, time.perf_counter()
        self._unit = self._unit if unit is None else unit
        if what is not None:
            self._bar.update(self._task, description=what)
        self._bar.reset(self._task, total=total, start=bool(total))
        if total:
            self._bar.start()

    def advance(self, images: int) -> None:
        """Move on by ``images``."""
        self._done += images
        rate = self._done / max(time.perf_counter() - self._began, 1e-9)
        self._bar.update(self._task, advance=images, rate=f"{rate:,.1f} {self._unit}/s")

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(printable(message), highlight=False, markup=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        self._bar.stop()


class LineProgress(Silent):
    """Plain lines, at most one every ``every`` seconds."""

    def __init__(
        self, what: str, unit: str = "images", *, every: float = 10.0, stream: TextIO | None = None
    ) -> None:
        self._unit = unit
        self._what, self._every, self._stream = what, every, stream or sys.stderr
        self._total = self._done = 0
        self._began = self._last_told = time.perf_counter()

    def start(self, total: int, what: str | None = None, unit: str | None = None) -> None:
        """Say how many images there are."""
        self._what = self._what if what is None else what
        self._unit = self._unit if unit is None else unit
        self._total, self._done, self._began = total, 0, time.perf_counter()
        if total:
            self.note(f"{self._what}: {total:,} {self._unit}")

    def advance(self, images: int) -> None:
        """Say where the work is, now and then and at its end."""
        self._done += images
        now = time.perf_counter()
        if now - self._last_told < self._every and self._done < self._total:
            return
        self._last_told = now
        rate = self._done / max(now - self._began, 1e-9)
        left = (self._total - self._done) / max(rate, 1e-9)
        self.note(
            f"{self._what}: {self._done:,}/{self._total:,}  {rate:,.1f} {self._unit}/s  {left:,.0f} s left"
        )

    def note(self, message: str) -> None:
        """Write a line."""
        self._stream.write(printable(message) + "\n")
        self._stream.flush()


def progress_for(what: str, unit: str = "images") -> BarProgress | LineProgress | Silent:
    """Return a bar on a terminal, lines elsewhere; silence in all but one of several processes."""
    if not speaks():
        return Silent()
    return BarProgress(what, unit) if sys.stderr.isatty() else LineProgress(what, unit)
