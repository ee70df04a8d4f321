"""100,000 images, memory and handles.

Small images drawn and put through `distill cache-features` and two epochs of `distill train`
(`timm:test_resnet`) as a user does, one worker, `--pixels 37`. Memory is the proportional resident memory
(PSS) of a command and its workers; what it rises by is the slope of a straight line through the last two
thirds of a stage. The picture is drawn beside --json, and here with --keep.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.turns import Row, command_failed
from distill.demo.scenes import draw_dataset

TEACHER = Path(__file__).parents[2] / "distill" / "demo" / "teacher"
PICTURE = Path(__file__).parents[1] / "pictures" / "load_memory.png"
EVERY_S = 0.5
STEADY = 1 / 3
ROUNDS = 1
OPTIONS = {"images": 100_000, "epochs": 2}
# Of the 100 classes of the drawn data set, half are trained on: nine pictures in ten.
SHARES = {"train_per_class": 0.018, "id_test_per_class": 0.001, "ood_test_per_class": 0.001}
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


def pss(pid: int) -> int:
    """Return the proportional resident bytes of a process, 0 for one that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return 1024 * next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)


def sample(pid: int) -> tuple[int, int]:
    """Return the memory and the open files of a process and all below it."""
    memory = files = 0
    for process in family(pid):
        memory += pss(process)
        with suppress(OSError):  # it has just ended
            files += sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
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


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Draw the images, and put them through both stages."""
    with tempfile.TemporaryDirectory(prefix="load-") as scratch:
        root = Path(scratch)
        counts = {name: max(1, round(share * args.images)) for name, share in SHARES.items()}
        draw_dataset(root / "data", image_size=32, **counts)
        trained_on, drawn = 50 * counts["train_per_class"], 50 * sum(counts.values())
        teacher = ["--model", f"local-dir:{TEACHER}", "--device", "cpu", "--workers", 1, "--pixels", 37]
        cached = ["cache-features", root / "data", "--out", root / "cache", *teacher]
        student = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--batch-size", 128]
        trained = ["train", root / "cache", "--data", root / "data", "--out", root / "run", *student]
        trained += ["--epochs", args.epochs]
        began = time.perf_counter()
        stages = [
            watched(Stage(name="cache-features", images=drawn), cached, began),
            watched(Stage(name="train", images=trained_on * args.epochs), trained, began),
        ]
    plot(PICTURE if args.keep else args.json.with_suffix(".png"), stages, drawn)
    return [stage.row() for stage in stages], [vars(stage) for stage in stages]
