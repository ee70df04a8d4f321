"""How soon a command answers.

Processor time of whole commands, of which most is imports: what is wrong is to be said before torch is
imported, and what reads a cache alone is to do without. The cache has random rows (D = 512) of tiny pictures,
the run is one epoch of a small student, the model its ONNX file. With `--before CHECKOUT` the same commands
take turns with those of an earlier checkout. `serve` is timed until it says its address.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.turns import Row, command_failed, in_turn, medians, random_rows, tiny_photos

ROOT = Path(__file__).parents[2]
OPTIONS = {"classes": 50, "images": 20, "before": ""}
COLUMNS = {"command": "{}", "processor time": "{:.2f} s", "before": "{:.2f} s"}
STUDENT = ["--recipe", "small", "--arch", "timm:test_resnet", "--image-size", 32, "--epochs", 1]


def commands(place: Path) -> dict[str, list[str]]:
    """Return command lines by what they are called; ``place`` has data, cache, run and model."""
    cache, run, model = (str(place / name) for name in ("cache", "run", "model"))
    photo = str(next((place / "data").glob("train/*/*.jpg")))
    nowhere, new, empty = (str(place / name) for name in ("nowhere", "new", "empty"))
    teacher = ["--model", f"local-dir:{ROOT / 'distill' / 'demo' / 'teacher'}"]
    return {
        "--help": ["--help"],
        "train --help": ["train", "--help"],
        "cache info CACHE": ["cache", "info", cache],
        "evaluate CACHE": ["evaluate", cache, "--teacher"],
        "evaluate RUN": ["evaluate", run],
        "report RUN": ["report", run, "--out", str(place / "report.html")],
        "predict MODEL photo.jpg": ["predict", model, photo],
        "serve MODEL": ["serve", model, "--port", "0"],
        "cache-features NOTHING": ["cache-features", nowhere, "--out", new, *teacher],
        "cache-features EMPTY": ["cache-features", empty, "--out", new, *teacher],
        "train NOCACHE": ["train", empty, "--out", new],
        "train CACHE --recipe NONE": ["train", cache, "--out", new, "--recipe", "none"],
        "evaluate NORUN": ["evaluate", empty],
        "export NORUN": ["export", empty, "--out", new],
        "fewshot NORUN": ["fewshot", empty],
        "sweep --cache NOCACHE": ["sweep", "losses", "--cache", empty, "--data", empty, "--out", new],
    }


def processor_time(words: Sequence[str], root: Path) -> tuple[float, int]:
    """Return a command's processor time, in seconds, and its status; a server is ended once it listens."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    own = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-P", "-m", "cli", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=own,
        text=True,
    ) as process:
        assert process.stdout is not None
        if words[0] == "serve":
            process.stdout.readline()
            process.terminate()
        process.stdout.read()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, process.returncode


def prepare(place: Path, args: argparse.Namespace) -> None:
    """Make what the commands are given."""
    photos = tiny_photos(place / "data", classes=args.classes, images=args.images)
    (place / "empty").mkdir()
    random_rows(place / "cache", photos, embed_dim=512)
    train = ["train", place / "cache", "--data", place / "data", "--out", place / "run", *STUDENT]
    for words in (train, ["export", place / "run", "--out", place / "model"]):
        command = [sys.executable, "-P", "-m", "cli", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
        )
        if done.returncode:
            raise command_failed(f"distill {words[0]}", done.returncode, done.stderr)


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Run each command again and again, in turns with an earlier checkout's where one is given."""
    roots: Mapping[str, Path] = {"processor time": ROOT}
    if args.before:
        roots |= {"before": Path(args.before)}
    table, details = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        place = Path(scratch)
        prepare(place, args)
        for name, words in commands(place).items():
            turns = in_turn(
                {who: partial(processor_time, words, root) for who, root in roots.items()}, args.rounds
            )
            # A checkout that cannot read what ours has made says that soon.
            same = [who for who in roots if turns[0][who][1] == turns[0]["processor time"][1]]
            taken = medians([{who: turn[who][0] for who in same} for turn in turns])
            table.append({"command": name, **taken})
            details[name] = turns
    return table, details
