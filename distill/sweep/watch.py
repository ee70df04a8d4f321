"""How a sweep is watched: a live table on a terminal, a line when a run begins or ends in a log."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, JustifyMethod
from rich.live import Live
from rich.table import Table

from distill.headline import headline_label, headline_splits, headline_words
from distill.sweep.plan import PlannedRun
from distill.sweep.run import FAILED, FINISHED, Place, RunResult, last_line

WAITING, RUNNING = "waiting", "running"
# Lines of the table that are no run's, and columns that are not the name's.
FRAME, BESIDE_NAME = 6, 56


def cells(run: PlannedRun, status: str, line: Mapping[str, Any], splits: Sequence[str]) -> list[str]:
    """Return a run's line: name, status, epoch, rate, and what its newest epoch's metrics say of splits."""
    epoch = f"{line['epoch']}/{run.config.train.epochs}" if line else ""
    rate = f"{line['images_per_s']:,.0f}/s" if line else ""
    return [run.name, status, epoch, rate, *(headline_words(line, split) for split in splits)]


class LiveTable:
    """Every run's epoch, rate, ID and OOD on standard error, as they change."""

    def __init__(self, runs: Sequence[PlannedRun], place: Place) -> None:
        """Show all runs as waiting."""
        self._runs, self._place, self._console = runs, place, Console(stderr=True)
        self._status = {run.name: WAITING for run in runs}
        # Once a second: it reads every running run's file.
        self._live = Live(get_renderable=self._table, console=self._console, refresh_per_second=1)
        self._live.start()

    def started(self, run: PlannedRun) -> None:
        """Show it as running."""
        self._status[run.name] = RUNNING

    def ended(self, result: RunResult) -> None:
        """Show how it ended."""
        self._status[result.run.name] = "finished before" if result.skipped else result.status

    def warn(self, message: str) -> None:
        """Say something above the table."""
        self._console.print(message, highlight=False, markup=False)

    def close(self) -> None:
        """Leave the table as it stands."""
        self._live.stop()

    def _table(self) -> Table:
        shown, hidden = self._shown()
        counts = Counter(self._status[run.name] for run in hidden)
        more = ", ".join(f"{count} {status}" for status, count in counts.items())
        table = Table(caption=f"and {more}" if more else None)
        lines = {
            run.name: last_line(self._place.folder(run)) if self._status[run.name] != WAITING else {}
            for run in shown
        }
        splits = headline_splits(lines.values())
        labels = [headline_label(lines.values(), split) for split in splits]
        for name in ("run", "", "epoch", "rate", *labels):
            # Names differ at their end as often as at their beginning: they are folded, not cut.
            justify: JustifyMethod = "left" if name in ("run", "") else "right"
            table.add_column(name, justify=justify, overflow="fold", no_wrap=name != "run")
        for run in shown:
            line = cells(run, self._status[run.name], lines[run.name], splits)
            table.add_row(*(cell.replace("[", "\\[") for cell in line))
        return table

    def _shown(self) -> tuple[list[PlannedRun], list[PlannedRun]]:
        """Return the runs that the terminal has room for, in the sweep's order, and the others."""
        width, height = self._console.size
        room = height - FRAME
        first = {RUNNING: 0, FAILED: 1, WAITING: 2}
        by_interest = sorted(self._runs, key=lambda run: first.get(self._status[run.name], 3))
        shown: list[PlannedRun] = []
        for run in by_interest:
            room -= 1 + len(run.name) // max(width - BESIDE_NAME, 10)
            if room < 0:
                break
            shown.append(run)
        return [run for run in self._runs if run in shown], [run for run in self._runs if run not in shown]


class Lines:
    """A line when a run begins and one when it ends."""

    def __init__(self, runs: Sequence[PlannedRun], place: Place) -> None:
        """Say nothing yet."""
        self._place, self._total, self._ended = place, len(runs), 0

    def started(self, run: PlannedRun) -> None:
        """Say so."""
        self._say(f"{run.name}: begins")

    def ended(self, result: RunResult) -> None:
        """Say how it ended, and how many have."""
        self._ended += 1
        of = f"({self._ended} of {self._total})"
        if result.status == FAILED:
            self._say(f"{result.run.name}: failed {of}: {result.error}")
            return
        metrics, before = result.summary, " before" if result.skipped else ""
        told = [
            f"{headline_label([metrics], split)} {headline_words(metrics, split)}"
            for split in headline_splits([metrics])
        ]
        self._say(
            f"{result.run.name}: {FINISHED}{before} {of}: {', '.join(told) or 'nothing to judge it on'}"
        )

    def warn(self, message: str) -> None:
        """Say it."""
        self._say(message)

    def close(self) -> None:
        """Nothing is open."""

    def _say(self, message: str) -> None:
        sys.stderr.write(message + "\n")
        sys.stderr.flush()
