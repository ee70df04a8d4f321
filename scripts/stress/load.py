"""100,000 images, memory and handles.

Small images drawn and put through `distill cache-features` and two epochs of `distill train`
(`timm:test_resnet`) as a user does, one worker, `--pixels 37`. Memory is the proportional resident memory
(PSS) of a command and its workers; what it rises by is the slope of a straight line through the last two
thirds of a stage.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.turns import Row, command_failed, positive

TEACHER = Path(__file__).parents[2] / "distill" / "demo" / "teacher"
# Names that the small teacher knows: colour x shape, the last ones OOD.
CLASSES = [
    f"plain {c} {s}"
    for s in ("circle", "square", "triangle", "star")
    for c in ("red", "green", "blue", "purple")
]
UNSEEN = 4
SIDE = 32
EVERY_S = 0.5
STEADY = 1 / 3
ROUNDS = 1
COLUMNS = {
    "stage": "{}",
    "seconds": "{:,.0f}",
    "images/s": "{:,.0f}",
    "peak memory": "{:,.0f} MB",
    "memory for 10,000 more": "{:+.1f} MB",
    "files for 10,000 more": "{:+.1f}",
    "open files at most": "{}",
}


@dataclass(kw_only=True)
class Stage:
    """One command's samples: seconds since the beginning of all, bytes of memory, and open files."""

    name: str
    images: int
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def row(self) -> Row:
        """Return the peaks, and how much memory and open files rise for 10,000 images."""
        first = int(len(self.seconds) * STEADY)
        took = self.seconds[-1] - self.seconds[0]
        rises = [
            float(np.polyfit(self.seconds[first:], np.array(values[first:], dtype=float), 1)[0])
            * (took / self.images * 10_000)
            for values in (self.memory, self.files)
        ]
        numbers = (
            took,
            self.images / took,
            max(self.memory) / 1e6,
            rises[0] / 1e6,
            rises[1],
            max(self.files),
        )
        return dict(zip(COLUMNS, (self.name, *numbers), strict=True))


def draw(root: Path, count: int) -> None:
    """Draw images of a colour and noise, nine in ten of them to train on."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 80, size=(64, SIDE, SIDE, 3), dtype=np.uint8)
    split_of = {0: "val", 1: "val_on_train"}
    for i in range(count):
        split = split_of.get(i % 20, "train")
        names = CLASSES[-UNSEEN:] if split == "val" else CLASSES[:-UNSEEN]
        label = i // 20 % len(names)
        folder = root / split / names[label]
        folder.mkdir(parents=True, exist_ok=True)
        colour = np.array([40 + 9 * label, 30 * (i % 5), 160 - 8 * label], dtype=np.uint8)
        Image.fromarray(noise[rng.integers(64)] + colour).save(folder / f"{i:07d}.jpg", quality=80)


def family(pid: int) -> list[int]:
    """Return a process and all below it."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    processes = [pid]
    for process in processes:
        processes += children.get(process, [])
    return processes


def sample(pid: int) -> tuple[int, int]:
    """Return the memory and the open files of a process and all below it."""
    memory = files = 0
    for process in family(pid):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
            memory += 1024 * next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
            files += sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
        except (OSError, StopIteration):  # it has just ended
            continue
    return memory, files


def watched(stage: Stage, words: list[object], began: float) -> Stage:
    """Run a command to its end, and sample it."""
    command = [sys.executable, "-P", "-m", "cli", *map(str, words)]
    with (
        tempfile.TemporaryFile("w+") as output,
        subprocess.Popen(command, stdout=output, stderr=output) as process,
    ):
        while process.poll() is None:
            memory, files = sample(process.pid)
            stage.seconds.append(time.perf_counter() - began)
            stage.memory.append(memory)
            stage.files.append(files)
            time.sleep(EVERY_S)
        output.seek(0)
        if process.returncode:
            raise command_failed(stage.name, process.returncode, output.read())
    return stage


def plot(path: Path, stages: list[Stage], images: int) -> None:
    """Draw memory and open files over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    memory, files = figure.subplots(2, 1, sharex=True)
    for stage in stages:
        memory.plot(stage.seconds, [value / 1e6 for value in stage.memory], label=stage.name)
        files.plot(stage.seconds, stage.files, label=stage.name)
    memory.set(ylabel="memory, PSS (MB)", title=f"{images:,} images through both stages", ylim=(0, None))
    files.set(ylabel="open files", xlabel="time (s)", ylim=(0, None))
    memory.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what the load run takes."""
    parser.add_argument("--images", type=positive, default=100_000, help="How many; 100000 unless given.")
    parser.add_argument("--epochs", type=positive, default=2, help="Of the training; 2 unless given.")
    parser.add_argument("--plot", type=Path, help="Where the picture goes; beside --json unless given.")


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Draw the images, and put them through both stages."""
    with tempfile.TemporaryDirectory(prefix="load-") as scratch:
        root = Path(scratch)
        draw(root / "data", args.images)
        teacher = ["--model", f"local-dir:{TEACHER}", "--device", "cpu", "--workers", 1, "--pixels", 37]
        cached = ["cache-features", root / "data", "--out", root / "cache", *teacher]
        student = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--batch-size", 128]
        trained = ["train", root / "cache", "--data", root / "data", "--out", root / "run", *student]
        trained += ["--epochs", args.epochs]
        began = time.perf_counter()
        stages = [
            watched(Stage(name="cache-features", images=args.images), cached, began),
            watched(Stage(name="train", images=args.images * 9 // 10 * args.epochs), trained, began),
        ]
    plot(args.plot or args.json.with_suffix(".png"), stages, args.images)
    return [stage.row() for stage in stages], [vars(stage) for stage in stages]
