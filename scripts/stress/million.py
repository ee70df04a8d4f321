"""A million samples in tars, a kill and a resume.

Tars of 10,000 tiny pictures with their class go through stage 1 with the demo's teacher. Four parts, each of
which can be a command of its own on the same --folder: `write` the tars; `run` stage 1 into an empty cache
and kill it (SIGKILL) at --kill-at; `resume` it to its end; `rerun` it on the finished cache. Without `run`
before it, `resume` is one run that nothing stops. The table has every part that --folder knows.

Opening is from calling stage 1, its imports done, to the first sample handed out: tars are listed, the
teacher is loaded, the rows that are there compared. Samples/s are from there to the last batch. "Twice" is
what the kill made stage 1 embed again. Memory is the proportional resident memory (PSS) of the main process,
and of its workers together, when so much of all samples had its row. The tars are in the page cache.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from benchmarks.turns import Row, timed
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.atomic_files import write_json
from cache.runtime.errors import UserError, WrongOption
from cache.runtime.progress import Silent
from cache.store.journal import Journal
from stress.load import TEACHER, family, pss
from stress.million_tars import write_tars

PARTS = ("write", "run", "resume", "rerun")
SHARES = (0.1, 0.5, 1.0)
EVERY_S, SAID_EVERY_S = 0.25, 15
# What a killed run's workers have to notice it.
GONE_S = 60
ROUNDS = 1
OPTIONS = {
    "folder": Path("artifacts/million"),
    "parts": list(PARTS),
    "samples": 1_000_000,
    "per_tar": 10_000,
    "kill_at": 0.5,
    "model": f"local-dir:{TEACHER}",
    "device": "auto",
    "workers": -1,  # as many as a run has
    "batch_size": 0,  # as a run has it
}
COLUMNS = {
    "part": "{}",
    "samples": "{:,}",
    "seconds": "{:,.1f}",
    "opening": "{:,.1f} s",
    "samples/s": "{:,.0f}",
    "twice": "{:,}",
    **{f"{who}, {share:.0%}": "{:,.0f} MB" for share in SHARES for who in ("main", "workers")},
    "peak": "{:,.0f} MB",
}


class Told(Silent):
    """Writes what a run says of itself to a file, a line at a time, so that a kill leaves all of it."""

    def __init__(self, path: Path) -> None:
        self._embeds = False
        self._file = os.open(path, os.O_CREAT | os.O_TRUNC | os.O_WRONLY | os.O_APPEND, 0o644)

    def start(self, total: int | None, what: str | None = None, unit: str | None = None) -> None:
        """``total`` are to be done from now on; of texts nothing is told."""
        self._embeds = what == "embedding"
        if self._embeds:
            self.tell("start", total or 0)

    def advance(self, images: int) -> None:
        """So many more are done."""
        if self._embeds:
            self.tell("advance", images)

    def tell(self, what: str, number: int = 0) -> None:
        """Write a line: what happens, when, and how many."""
        os.write(self._file, f"{what} {time.monotonic()} {number}\n".encode())


@dataclass(kw_only=True)
class Watched:
    """A run from outside: when it was where, how far it is, and [seconds, done, main, workers] in bytes."""

    samples: int
    called: float = 0.0
    opened: float = 0.0
    last: float = 0.0
    ended: float = 0.0
    planned: int = 0
    done: int = 0
    starts: int = 0
    memory: list[tuple[float, int, int, int]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """How many of all samples have been embedded."""
        return self.samples - self.planned + self.done if self.starts else 0

    def hear(self, line: str) -> None:
        """Take a line that :class:`Told` wrote."""
        what, when, number = line.split()
        if what == "start":
            self.starts += 1
            if self.starts == 1:
                self.opened, self.planned = float(when), int(number)
        elif what == "advance" and self.starts == 1:  # then come columns
            self.done, self.last = self.done + int(number), float(when)
        elif what in ("called", "ended"):
            setattr(self, what, float(when))

    def row(self, part: str) -> Row:
        """Return the table's row; a share that this run did not pass is left out."""
        row: Row = {"part": part, "samples": self.done, "opening": self.opened - self.called}
        row["seconds"] = (self.ended or self.last) - self.called
        if self.done:
            row["samples/s"] = self.done / (self.last - self.opened)
        for share in SHARES:
            # The last sample before: at the very end the workers are gone.
            before = [one for one in self.memory if 0 < one[1] < share * self.samples]
            if before and self.rows >= share * self.samples:
                *_, main, workers = before[-1]
                row |= {f"main, {share:.0%}": main / 1e6, f"workers, {share:.0%}": workers / 1e6}
        row["peak"] = max((main + workers for *_, main, workers in self.memory), default=0) / 1e6
        return row


def stage_one(folder: Path, told: Path, options: FeatureOptions) -> None:
    """Do a whole run of stage 1, in a process of its own."""
    progress = Told(told)
    progress.tell("called")
    cache_features([str(folder / "tars")], folder / "cache", options, progress=progress)
    progress.tell("ended")


def options_of(args: argparse.Namespace) -> FeatureOptions:
    """Return what stage 1 is told."""
    return FeatureOptions(
        model=args.model,
        device=args.device,
        workers=None if args.workers < 0 else args.workers,
        batch_size=args.batch_size or None,
    )


def watch(args: argparse.Namespace, part: str, kill_at: float | None = None) -> Watched:
    """Run stage 1, and sample it; at a share of all samples it is killed, and its workers are waited for."""
    told = args.folder / f"{part}.told"
    told.unlink(missing_ok=True)
    begun = multiprocessing.get_context("spawn").Process(
        target=stage_one, args=(args.folder, told, options_of(args))
    )
    begun.start()
    watched = Watched(samples=args.samples)
    try:
        _follow(begun, told, watched, part, kill_at)
    finally:
        if begun.is_alive():
            begun.kill()
        begun.join()
    if kill_at is None and begun.exitcode:
        raise UserError(f"{part} left with status {begun.exitcode}", fix="see what it said above.")
    if kill_at is not None and begun.exitcode != -signal.SIGKILL:
        raise UserError(f"{part} ended before it was killed", fix="give more --samples.")
    return watched


def _follow(begun: BaseProcess, told: Path, watched: Watched, part: str, kill_at: float | None) -> None:
    """Take what a run says until it has ended, and its memory; kill it at a share of all samples."""
    assert begun.pid is not None
    lines, said, alive = _lines(told), time.monotonic(), True
    while alive:
        alive = begun.is_alive()
        for line in iter(lines.__next__, ""):
            watched.hear(line)
        processes = family(begun.pid)
        main, *workers = map(pss, processes)
        if main:
            watched.memory.append((time.monotonic(), watched.rows, main, sum(workers)))
        if time.monotonic() - said > SAID_EVERY_S:
            said = time.monotonic()
            where = f"{part}: {watched.rows:,} rows, {main / 1e6:,.0f} and {sum(workers) / 1e6:,.0f} MB"
            print(where, file=sys.stderr)
        if kill_at is not None and watched.rows >= kill_at * watched.samples:
            begun.kill()
            begun.join()
            _wait_for(processes[1:])
        elif alive:
            time.sleep(EVERY_S)


def _lines(told: Path) -> Iterator[str]:
    """Yield what was told, line by line, and '' where there is no more yet."""
    while not told.exists():
        yield ""
    with told.open() as file:
        rest = ""
        while True:
            rest += file.readline()
            whole = rest.endswith("\n")
            yield rest if whole else ""
            rest = "" if whole else rest


def _wait_for(processes: list[int]) -> None:
    """Return when processes are gone; those that do not notice are killed."""
    until = time.monotonic() + GONE_S
    # One that has ended, and whom nobody has asked how, has no memory either.
    while (processes := [*filter(pss, processes)]) and time.monotonic() < until:
        time.sleep(EVERY_S)
    for pid in processes:
        os.kill(pid, signal.SIGKILL)


def rows_of(cache: Path) -> int:
    """Return how many rows the journal of a cache lists."""
    journal = Journal.load(cache)
    return sum(map(journal.rows, journal.splits))


def measure_part(args: argparse.Namespace, part: str) -> tuple[Row, Any]:
    """Do one part, and return its row of the table and its samples."""
    if part == "write":
        shutil.rmtree(args.folder, ignore_errors=True)
        seconds, _ = timed(lambda: write_tars(args.folder / "tars", args.samples, args.per_tar))
        row = {"part": part, "samples": args.samples, "seconds": seconds, "samples/s": args.samples / seconds}
        return row, []
    if not (args.folder / "tars").is_dir():
        raise UserError(f"{args.folder} has no tars", fix="begin with --parts write.")
    if part == "run":
        shutil.rmtree(args.folder / "cache", ignore_errors=True)
    watched = watch(args, part, args.kill_at if part == "run" else None)
    row = watched.row(part)
    if part == "run":
        row["twice"] = watched.rows - rows_of(args.folder / "cache")
    return row, watched.memory


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Do some parts; return the rows of all that the folder knows, those before too."""
    if unknown := [part for part in args.parts if part not in PARTS]:
        raise WrongOption(f"--parts: {unknown[0]!r} is not one", fix=f"choose from {', '.join(PARTS)}.")
    known = args.folder / "parts.json"
    for part in (part for part in PARTS if part in args.parts):
        row, memory = measure_part(args, part)
        parts = json.loads(known.read_bytes()) if known.is_file() else {}
        write_json(known, parts | {part: {"row": row, "memory": memory}})
    parts = json.loads(known.read_bytes())
    table = [parts[part]["row"] for part in PARTS if part in parts]
    return table, {part: parts[part]["memory"] for part in parts}
