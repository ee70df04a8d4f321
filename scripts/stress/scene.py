"""What faults are injected into: commands in processes of their own, and what they must make.

A command runs in a fork of this process, which has everything imported: it is the same code in a real process
that can be killed, without seconds of imports before each.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

import cli
from cache.runtime.atomic_files import is_leftover
from distill.checkpoint import read_checkpoint

TEACHER = Path(__file__).parents[2] / "distill" / "demo" / "teacher"
# Words that the small teacher knows.
TRAINED, UNSEEN = (
    ("plain red star", "plain blue circle", "striped red square"),
    ("plain green ring", "dotted blue star"),
)
CLASSES = {"train": TRAINED, "val_on_train": TRAINED, "val": UNSEEN}
IMAGES = {"train": 24, "val_on_train": 4, "val": 8}
STUDENT = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--set", "data.workers=0"]
BUG = 99
# What the commands import: here once, and not in every fork of this process.
IMPORTED = (
    *("cache.build.from_folder", "cache.maintain.convert", "cache.maintain.import_embeddings"),
    *("distill.fewshot.run", "distill.report.page", "distill.sweep.together", "distill.sweep.watch"),
)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a command ended: its status (negative: by that signal), what it printed, the seconds it took."""

    status: int
    output: str
    seconds: float

    @property
    def one_line(self) -> bool:
        """Whether an error is one line, as a user is promised."""
        errors = [line for line in self.output.splitlines() if line.startswith("Error: ")]
        # A sweep goes on past a failed run, and names each in a line.
        failed = any(line.startswith("failed: ") for line in self.output.splitlines())
        return "Traceback" not in self.output and self.status != BUG and (len(errors) == 1 or failed)


class Running:
    """A command in a process of its own."""

    def __init__(self, words: Sequence[object], log: Path, limits: Mapping[int, int] | None = None) -> None:
        """Start ``distill WORDS``; ``limits`` are those of resources."""
        self._log, self._began = log, time.perf_counter()
        log.parent.mkdir(parents=True, exist_ok=True)
        log.touch()  # it may be killed before it can
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            _become([str(word) for word in words], log, limits or {})

    def signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def is_running(self) -> bool:
        """Say whether it has not ended."""
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def wait(self) -> Ended:
        """Return how it ended."""
        _, status = os.waitpid(self.pid, 0)
        output, seconds = self._log.read_text(errors="replace"), time.perf_counter() - self._began
        return Ended(status=os.waitstatus_to_exitcode(status), output=output, seconds=seconds)


def _become(words: list[str], log: Path, limits: Mapping[int, int]) -> None:
    """Be the command, in a child; never returns."""
    status = BUG
    try:
        file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, 1)
        os.dup2(file, 2)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        for what, most in limits.items():
            resource.setrlimit(what, (most, most))
        sys.argv = ["distill", *words]
        cli.main(words, prog_name="distill")
    except SystemExit as left:
        status = left.code if isinstance(left.code, int) else 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to be struck: its words for an output folder, those that go on, how its result is read."""

    name: str
    words: Callable[[Path], list[object]]
    result: Callable[[Path], Any]
    again: Callable[[Path], list[object]] | None = None

    def next_words(self, out: Path) -> list[object]:
        """Return the words that begin, or that go on with what is there."""
        return self.again(out) if self.again and (out / "config.toml").is_file() else self.words(out)

    def run(self, out: Path, log: Path) -> Ended:
        """Run it from the start, or go on with what is there."""
        return Running(self.next_words(out), log).wait()


def draw_photos(root: Path) -> Path:
    """Draw a small image folder with texts and captions; the same every time."""
    rng = np.random.default_rng(0)
    captions = []
    for split, classes in CLASSES.items():
        for label, name in enumerate(classes):
            (root / split / name).mkdir(parents=True)
            for i in range(IMAGES[split]):
                pixels = rng.integers(0, 255, size=(40, 40, 3)) // (label + 2)
                Image.fromarray(pixels.astype(np.uint8)).save(root / split / name / f"{split}_{i}.png")
                captions.append({"key": f"{name}/{split}_{i}.png", "caption": f"{name}"})
    names = sorted({name for classes in CLASSES.values() for name in classes})
    (root / "label2text.txt").write_text(
        "".join(f"{n} {i} {n.replace(' ', '_')}\n" for i, n in enumerate(names, start=1))
    )
    (root / "chatgpt.txt").write_text("".join(f"{n}\tA {n} .\n" for n in names))
    (root / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
    return root


def tree(folder: Path) -> dict[str, bytes]:
    """Return every file's bytes by its path."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def leftovers(folder: Path) -> list[str]:
    """Return temporaries and locks that nobody removed."""
    return [str(path) for path in folder.rglob("*") if is_leftover(path)]


def numbers_of_run(run: Path) -> dict[str, Any]:
    """Return what must be the same in two runs: metrics, results, and the student, bit for bit."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    summary = json.loads((run / "summary.json").read_text())
    student = read_checkpoint(run / "last.pt")["student"]
    return {
        "metrics": [{k: v for k, v in line.items() if k != "images_per_s"} for line in lines],
        "results": {k: v for k, v in summary.items() if k.endswith(("_accuracy", "_loss")) or k == "space"},
        "student": {name: value.numpy().tobytes() for name, value in student.items()},
        "files": sorted(p.name for p in run.iterdir() if not p.name.startswith("events.")),
    }


def numbers_of_runs(folder: Path) -> dict[str, Any]:
    """Return the numbers of every run in a sweep's folder."""
    return {path.parent.name: numbers_of_run(path.parent) for path in sorted(folder.glob("*/summary.json"))}


def few_shot_numbers(out: Path) -> Any:
    """Return the few-shot results, without what names this very folder."""
    results = json.loads((out / "fewshot.json").read_text())
    draws = [{k: v for k, v in draw.items() if k != "details"} for draw in results["draws"]]
    return {"table": results["table"], "draws": draws}


class Scene:
    """Photos, finished caches and runs, made once and uninterrupted, and the commands that make such."""

    def __init__(self, root: Path) -> None:
        """Make everything below ``root``."""
        torch.set_num_threads(1)
        for module in IMPORTED:
            importlib.import_module(module)
        self.root = root
        self.photos = draw_photos(root / "photos")
        self.whole = root / "whole"
        self.commands = {command.name: command for command in self._commands()}
        self._write_sources()
        self.seconds: dict[str, float] = {}
        self.expected: dict[str, Any] = {}
        for name, command in self.commands.items():
            ended = command.run(self.whole / name, root / "logs" / f"{name}.log")
            assert ended.status == 0, f"{name} fails without any fault: {ended.output}"
            self.seconds[name] = ended.seconds
            self.expected[name] = command.result(self.whole / name)

    def _write_sources(self) -> None:
        rng = np.random.default_rng(1)
        keys = [f"train/{p.parent.name}/{p.name}" for p in sorted((self.photos / "train").rglob("*.png"))]
        np.save(self.root / "rows.npy", rng.normal(size=(len(keys), 512)).astype("float32"))
        np.save(self.root / "texts.npy", rng.normal(size=(3, 512)).astype("float32"))
        (self.root / "keys.txt").write_text("\n".join(keys))
        (self.root / "classes.txt").write_text("\n".join(CLASSES["train"]))
        (self.root / "sweep.toml").write_text(
            'recipe = "smoke"\nseeds = [0, 1]\n[base]\nstudent.arch = "timm:test_resnet"\n'
            'train.device = "cpu"\ndata.workers = 0\ntrain.checkpoint_steps = 1\n'
        )

    def _commands(self) -> list[Command]:
        features = self.whole / "cache-features"
        photos = ["--data", self.photos]
        teacher = ["--model", f"local-dir:{TEACHER}", "--device", "cpu"]
        more = ["--batch-size", 4, "--pixels", 36, "--views", 2, "--support-views", 3]
        more += ["--keep-text-tower", "--workers", 1]
        train = ["--data", self.photos, *STUDENT, "--epochs", 3, "--set", "train.checkpoint_steps=2"]
        sweep = ["sweep", self.root / "sweep.toml", "--cache", features, "--data", self.photos, "--together"]
        few = ["--shots", 2, "--device", "cpu", "--epochs", 2, "--set", "train.checkpoint_steps=1"]

        def import_words(out: Path) -> list[object]:
            given = {"images": "rows.npy", "keys": "keys.txt", "texts": "texts.npy", "classes": "classes.txt"}
            named = [word for name, file in given.items() for word in (f"--{name}", self.root / file)]
            return ["cache", "import", "--out", out, *named]

        def of_fewshot(method: str) -> Callable[[Path], list[object]]:
            options = few if method == "finetune" else few[:4]
            return lambda out: ["fewshot", self.whole / "train", "--method", method, "--out", out, *options]

        return [
            Command(
                name="cache-features",
                words=lambda out: ["cache-features", self.photos, "--out", out, *teacher, *more],
                result=tree,
            ),
            Command(name="import", words=import_words, result=tree),
            Command(
                name="convert",
                words=lambda out: ["cache", "convert", features, "--to", "webdataset", "--out", out, *photos],
                result=tree,
            ),
            Command(
                name="train",
                words=lambda out: ["train", features, "--out", out, *train],
                again=lambda out: ["train", features, "--out", out, *train, "--resume"],
                result=numbers_of_run,
            ),
            Command(name="fewshot-finetune", words=of_fewshot("finetune"), result=few_shot_numbers),
            Command(name="fewshot-retrieval", words=of_fewshot("retrieval"), result=few_shot_numbers),
            Command(name="sweep", words=lambda out: [*sweep, "--out", out], result=numbers_of_runs),
            Command(
                name="report",
                words=lambda out: ["report", self.whole / "sweep", "--out", out / "report.html"],
                result=tree,
            ),
        ]

    def copy(self, name: str, to: Path) -> Path:
        """Return a copy of what a command made."""
        shutil.copytree(self.whole / name, to)
        return to
