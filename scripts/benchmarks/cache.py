"""A cache's rows, from ten thousand to ten million.

Random rows in float16, 1,000 classes, one split; beside the format before row groups, by its own code (a
commit of this repository, up to --before-rows), and beside one array that numpy maps. Each measurement is a
process of its own that has imported numpy, h5py and torch, as training does. "Open" goes as far as the labels
and one row. Memory is what that adds: the process's own, and with the pages of mapped files, which the system
takes back when it wants them; and with those that 600 batches touch. A batch is 256 random rows, the CPU's
time, with the files in the system's memory. A "no-op run" is the build that finds nothing to do, without the
teacher's loading and of a source that asks no disk; "listed anew" is one that has to compare every image with
its row, as the format before always has. "Verify" compares every file with its checksum. Bytes a row are
those of all files.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cache_before import BEFORE
from benchmarks.turns import Row, command_failed, in_turn, median_ratios, medians, one_number
from cache.runtime.errors import UserError

ROOT = Path(__file__).parents[2]
NOW, OLD, PLAIN = "row groups", "the format before", "numpy.memmap"
MODULES = {NOW: "cache_now", OLD: "cache_before", PLAIN: "cache_memmap"}
OPTIONS = {
    "rows": [10_000, 100_000, 1_000_000],
    "embed_dim": 512,
    "classes": 1000,
    "before": BEFORE,
    "before_rows": 1_000_000,
}
COLUMNS = {
    "rows": "{:,}",
    "D": "{}",
    "way": "{}",
    "open": "{:.3f} s",
    "own memory": "{:+,.0f} MB",
    "with mapped pages": "{:+,.0f} MB",
    "after 600 batches": "{:+,.0f} MB",
    "open files": "{}",
    "batch of 256": "{:.3f} ms",
    "by numpy.memmap's": "{:.2f}",
    "no-op run": "{:.2f} s",
    "listed anew": "{:.2f} s",
    "verify": "{:.2f} s",
    "bytes a row": "{:,.0f}",
}


def checkout(commit: str, folder: Path) -> Path:
    """Write the files of a commit into a folder; UserError where this is no repository that has it."""
    folder.mkdir()
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    if archive.returncode:
        problem = archive.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise UserError(
            f"--before {commit:.40} cannot be checked out from {ROOT} ({''.join(problem)})",
            fix="run this in a clone with its whole history, or give --before-rows 0 to leave it out.",
        )
    subprocess.run(["tar", "-x", "-C", str(folder)], input=archive.stdout, check=True)
    return folder


def ask(way: str, what: str, folder: Path, args: argparse.Namespace, rows: int, code: Path) -> Any:
    """Return what a way measures in a process of its own; see :mod:`benchmarks.cache_probe`."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{code if way == OLD else ROOT}{os.pathsep}{ROOT / 'scripts'}",
    }
    words = [what, folder / way, rows, min(args.classes, rows), args.embed_dim]
    # -P: beside this file lies another module that is called cache.
    command = [sys.executable, "-P", "-m", f"benchmarks.{MODULES[way]}", *map(str, words)]
    ended = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True)
    if ended.returncode:
        raise command_failed(f"{way}, {what}", ended.returncode, ended.stderr)
    return json.loads(ended.stdout.splitlines()[-1])


def turn_of(way: str, folder: Path, args: argparse.Namespace, rows: int, code: Path) -> dict[str, float]:
    """Return a turn's numbers of one way."""
    numbers: dict[str, float] = ask(way, "look", folder, args, rows, code)
    if way != PLAIN:
        numbers |= ask(way, "verify", folder, args, rows, code)
        numbers |= ask(way, "no_op", folder, args, rows, code)
    return numbers


def compare(args: argparse.Namespace, rows: int, folder: Path, code: Path) -> tuple[list[Row], Any]:
    """Let the ways take turns on as many rows; what they wrote is removed."""
    ways = [way for way in MODULES if way != OLD or rows <= args.before_rows]
    sizes = {}
    for way in ways:
        ask(way, "make", folder, args, rows, code)
        files = (file for file in (folder / way).rglob("*") if file.is_file())
        sizes[way] = sum(file.stat().st_size for file in files) / rows
    rounds = in_turn(
        {way: lambda way=way: turn_of(way, folder, args, rows, code) for way in ways}, args.rounds
    )
    for way in ways:
        shutil.rmtree(folder / way)
    ratios = median_ratios(one_number(rounds, "batch of 256"), PLAIN)
    table = []
    for way in ways:
        row: Row = {"rows": rows, "D": args.embed_dim, "way": way, "bytes a row": sizes[way]}
        row |= {k: value for k, value in medians([turn[way] for turn in rounds]).items() if k in COLUMNS}
        row |= {"by numpy.memmap's": ratios[way], "open files": round(row["open files"])}
        table.append(row)
    return table, rounds


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Compare the ways at every number of rows."""
    table, details = [], []
    with tempfile.TemporaryDirectory(prefix="bench-cache-") as scratch:
        root = Path(scratch)
        wanted = any(rows <= args.before_rows for rows in args.rows)
        code = checkout(args.before, root / "before") if wanted else root
        for rows in args.rows:
            lines, rounds = compare(args, rows, root, code)
            table += lines
            details.append(rounds)
            print("\n".join(f"{line}" for line in lines), file=sys.stderr)
    return table, details
