"""Progress with rate and time left: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterable, Iterator
from typing import ClassVar, Protocol, TextIO, TypeVar, runtime_checkable

import rich.progress
from rich.console import Console

from cache.runtime.amounts import counted, in_time, rate_of
from cache.runtime.errors import printable
from cache.runtime.torchrun import speaks

Item = TypeVar("Item")
# What is over sooner needs no line in a log: nobody waited.
PATIENCE = 3.0


@runtime_checkable
class Progress(Protocol):
    """What a long piece of work tells whoever watches."""

    def start(self, total: int | None, what: str | None = None, unit: str | None = None) -> None:
        """``total`` of a ``unit`` are still to be done, None: nobody knows how many, 0: none.

        ``what`` is done to them. Of it and of the unit None is what it was.
        """

    def advance(self, images: int) -> None:
        """``images`` more are done."""

    def note(self, message: str) -> None:
        """Say something worth a line."""


class Silent:
    """A progress that says nothing; also the beginning of one that says little."""

    def start(self, total: int | None, what: str | None = None, unit: str | None = None) -> None:
        """Say nothing."""

    def advance(self, images: int) -> None:
        """Say nothing."""

    def note(self, message: str) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Say nothing."""


class BarProgress:
    """A rich bar on standard error; one that begins while another is shown takes its place."""

    _shown: ClassVar[BarProgress | None] = None

    def __init__(self, what: str, unit: str = "images") -> None:
        self._unit = unit
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("{task.description}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[count]}"),
            rich.progress.TextColumn("{task.fields[rate]}"),
            rich.progress.TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self._task = self._bar.add_task(what, total=None, rate="", count="")
        self._done, self._total, self._began = 0, 0, time.perf_counter()

    def start(self, total: int | None, what: str | None = None, unit: str | None = None) -> None:
        """Show a bar for ``total`` images."""
        self._done, self._total, self._began = 0, total or 0, time.perf_counter()
        self._unit = self._unit if unit is None else unit
        if what is not None:
            self._bar.update(self._task, description=what)
        self._bar.reset(self._task, total=total, start=total != 0, rate="", count="")
        if total != 0:
            if BarProgress._shown not in (None, self):
                BarProgress._shown.close()
            BarProgress._shown = self
            self._bar.start()

    def advance(self, images: int) -> None:
        """Move on by ``images``."""
        self._done += images
        rate = self._done / max(time.perf_counter() - self._began, 1e-9)
        count = counted(self._done, self._total, self._unit)
        self._bar.update(self._task, advance=images, rate=rate_of(rate, self._unit), count=count)

    def note(self, message: str) -> None:
        """Print a line above the bar."""
        self._bar.console.print(printable(message), highlight=False, markup=False)

    def close(self) -> None:
        """Leave the bar as it stands."""
        if BarProgress._shown is self:
            BarProgress._shown = None
        self._bar.stop()


class LineProgress(Silent):
    """Plain lines of what takes longer than ``patience`` seconds, at most one every ``every`` seconds."""

    def __init__(
        self,
        what: str,
        unit: str = "images",
        *,
        every: float = 10.0,
        patience: float = PATIENCE,
        stream: TextIO | None = None,
    ) -> None:
        self._unit = unit
        self._what, self._every, self._stream = what, every, stream or sys.stderr
        self._patience, self._total, self._done = patience, 0, 0
        self._began, self._last_told = time.perf_counter(), -math.inf

    def start(self, total: int | None, what: str | None = None, unit: str | None = None) -> None:
        """Begin to count ``total`` images."""
        self._what = self._what if what is None else what
        self._unit = self._unit if unit is None else unit
        self._total, self._done = total or 0, 0
        self._began, self._last_told = time.perf_counter(), -math.inf

    def advance(self, images: int) -> None:
        """Say where the work is, now and then and at its end."""
        self._done += images
        now = time.perf_counter()
        is_end = self._last_told > -math.inf and self._done == self._total
        if now - self._began < self._patience or (now - self._last_told < self._every and not is_end):
            return
        self._last_told = now
        rate = self._done / max(now - self._began, 1e-9)
        told = [counted(self._done, self._total, self._unit), rate_of(rate, self._unit)]
        if self._total > self._done and rate:
            told.append(f"{in_time((self._total - self._done) / rate)} left")
        self.note(f"{self._what}: {'  '.join(told)}")

    def note(self, message: str) -> None:
        """Write a line."""
        self._stream.write(printable(message) + "\n")
        self._stream.flush()


def progress_for(what: str, unit: str = "images") -> BarProgress | LineProgress | Silent:
    """Return a bar on a terminal, lines elsewhere; silence in all but one of several processes."""
    if not speaks():
        return Silent()
    return BarProgress(what, unit) if sys.stderr.isatty() else LineProgress(what, unit)


def counting(progress: Progress, items: Iterable[Item], *, at_once: int = 1) -> Iterator[Item]:
    """Yield each item, and say when the caller comes back for the next that it is done.

    Of what is done in microseconds so many are told ``at_once``: telling takes longer.
    """
    done = 0
    for done, item in enumerate(items, start=1):
        yield item
        if not done % at_once:
            progress.advance(at_once)
    if done % at_once:
        progress.advance(done % at_once)
