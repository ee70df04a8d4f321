"""The commands that are struck, and what must be the same in the result of an uninterrupted one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import is_leftover
from distill.checkpoint import read_checkpoint
from stress.content import content_of
from stress.processes import Ended, Running, Surroundings

TEACHER = Path(__file__).parents[2] / "distill" / "demo" / "teacher"
STUDENT = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--set", "data.workers=0"]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to be struck: its words for an output folder, those that go on, how its result is read.

    ``begins_with`` is what is in the output folder before, where it is not made by the command itself.
    """

    name: str
    words: Callable[[Path], list[object]]
    result: Callable[[Path], Any]
    again: Callable[[Path], list[object]] | None = None
    begins_with: Path | None = None

    def next_words(self, out: Path) -> list[object]:
        """Return the words that begin, or that go on with what is there."""
        if self.begins_with and not out.exists():
            shutil.copytree(self.begins_with, out)
        return self.again(out) if self.again and (out / "config.toml").is_file() else self.words(out)

    def start(self, out: Path, log: Path, surroundings: Surroundings | None = None) -> Running:
        """Start it, or go on with what is there."""
        return Running(self.next_words(out), log, surroundings)

    def run(self, out: Path, log: Path) -> Ended:
        """Run it from the start, or go on with what is there."""
        return self.start(out, log).wait()


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


Words = Callable[[Path], list[object]]


def commands_of(root: Path, photos: Path, fewer: Path, whole: Path) -> list[Command]:
    """Return the commands, in an order in which each finds in ``whole`` what it begins with."""
    return [*_of_caches(root, photos, fewer, whole), *_of_runs(root, photos, whole)]


def _of_caches(root: Path, photos: Path, fewer: Path, whole: Path) -> list[Command]:
    teacher = ["--model", f"local-dir:{TEACHER}", "--device", "cpu", "--workers", 1, "--batch-size", 4]
    columns = ["--pixels", 36, "--views", 2, "--support-views", 3, "--neighbours", 2, "--keep-text-tower"]
    given = {"images": "rows.npy", "keys": "keys.txt", "texts": "texts.npy", "classes": "classes.txt"}
    arrays = [word for name, file in given.items() for word in (f"--{name}", root / file)]

    def features(data: Path, *more: object) -> Words:
        return lambda out: ["cache-features", data, "--out", out, *teacher, *more]

    def cache(name: str, words: Words, begins_with: str = "") -> Command:
        first = whole / begins_with if begins_with else None
        return Command(name=name, words=words, result=content_of, begins_with=first)

    return [
        cache("fewer photos", features(fewer, *columns)),
        cache("cache-features", features(photos, *columns)),
        cache("grow", features(photos, *columns), "fewer photos"),
        cache("compact", lambda out: ["cache", "repair", out, "--compact"], "grow"),
        cache("rebuild", features(photos, *columns, "--rebuild", "--dtype", "float32"), "cache-features"),
        cache("tars", features(photos, "--format", "webdataset")),
        cache("import", lambda out: ["cache", "import", "--out", out, *arrays]),
        cache(
            "convert",
            lambda out: [
                *("cache", "convert", whole / "cache-features", "--to", "webdataset"),
                *("--out", out, "--data", photos),
            ],
        ),
    ]


def _of_runs(root: Path, photos: Path, whole: Path) -> list[Command]:
    features = whole / "cache-features"
    train = ["--data", photos, *STUDENT, "--epochs", 3, "--set", "train.checkpoint_steps=2"]
    sweep = ["sweep", root / "sweep.toml", "--cache", features, "--data", photos, "--together"]
    few = ["--shots", 2, "--device", "cpu", "--epochs", 2, "--set", "train.checkpoint_steps=1"]

    def of_fewshot(method: str) -> Words:
        options = few if method == "finetune" else few[:4]
        return lambda out: ["fewshot", whole / "train", "--method", method, "--out", out, *options]

    return [
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
            words=lambda out: ["report", whole / "sweep", "--out", out / "report.html"],
            result=tree,
        ),
    ]
