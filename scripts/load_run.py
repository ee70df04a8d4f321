"""Many images through both stages in one run, and whether memory and file handles stay flat.

    python scripts/load_run.py --images 100000

Draws small images, runs ``distill cache-features`` and ``distill train`` on them as a user does, and samples
the proportional resident memory (PSS) and the open files of each command and its workers. Writes JSON and a
plot. The slope is that of a straight line through the steady part of a stage (its last two thirds).
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
import torch
from bench_parts import leave_as, parser_of, run, whole, write_result
from PIL import Image

TEACHER = Path(__file__).parents[1] / "distill" / "demo" / "teacher"
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


@dataclass(kw_only=True)
class Stage:
    """One command's samples: seconds since the beginning of all, bytes of memory, and open files."""

    name: str
    images: int
    seconds: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    handles: list[int] = field(default_factory=list)

    def summary(self) -> dict[str, Any]:
        """Return the peak, and how much memory and handles rise for 10,000 images."""
        first = int(len(self.seconds) * STEADY)
        at = np.array(self.seconds[first:])
        steady = [np.array(values[first:], dtype=float) for values in (self.memory, self.handles)]
        rises = [float(np.polyfit(at, values, 1)[0]) for values in steady]
        took = self.seconds[-1] - self.seconds[0]
        share = took / self.images * 10_000
        return {
            "seconds": took,
            "images_per_s": self.images / took,
            "peak_MB": max(self.memory) / 1e6,
            "MB_per_10000_images": rises[0] * share / 1e6,
            "handles_at_most": max(self.handles),
            "handles_per_10000_images": rises[1] * share,
        }


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
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [pid]
    for process in found:
        found += parents.get(process, [])
    return found


def sample(pid: int) -> tuple[int, int]:
    """Return the memory and the open files of a process and all below it."""
    memory = handles = 0
    for process in family(pid):
        try:
            rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
            memory += (
                next(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:")) * 1024
            )
            handles += sum(1 for _ in Path(f"/proc/{process}/fd").iterdir())
        except (OSError, StopIteration):  # it has just ended
            continue
    return memory, handles


def watched(name: str, words: list[object], images: int, began: float) -> Stage:
    """Run a command to its end, and sample it."""
    stage = Stage(name=name, images=images)
    command = [sys.executable, "-P", "-m", "cli", *map(str, words)]
    with tempfile.TemporaryFile("w+") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        while process.poll() is None:
            memory, handles = sample(process.pid)
            stage.seconds.append(time.perf_counter() - began)
            stage.memory.append(memory)
            stage.handles.append(handles)
            time.sleep(EVERY_S)
        said.seek(0)
        if process.returncode:
            leave_as(name, process.returncode, said.read())
    return stage


def plot(path: Path, stages: list[Stage], images: int) -> None:
    """Draw memory and open files over time."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.5), layout="constrained")
    memory, handles = figure.subplots(2, 1, sharex=True)
    for stage in stages:
        memory.plot(stage.seconds, [value / 1e6 for value in stage.memory], label=stage.name)
        handles.plot(stage.seconds, stage.handles, label=stage.name)
    memory.set(ylabel="memory, PSS (MB)", title=f"{images:,} images through both stages", ylim=(0, None))
    handles.set(ylabel="open files", xlabel="time (s)", ylim=(0, None))
    memory.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def main() -> None:
    """Draw, run both stages, print and write what they took."""
    parser: argparse.ArgumentParser = parser_of(__file__, __doc__, rounds=1)
    parser.add_argument("--images", type=whole(200), default=100_000, help="How many; 100000 unless given.")
    parser.add_argument("--epochs", type=whole(1), default=2, help="Of the training; 2 unless given.")
    parser.add_argument("--plot", type=Path, help="Where the picture goes; beside --out unless given.")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="load-run-") as scratch:
        root = Path(scratch)
        draw(root / "data", args.images)
        began = time.perf_counter()
        teacher = ["--model", f"local-dir:{TEACHER}", "--device", "cpu", "--workers", 1, "--pixels", 37]
        cached = ["cache-features", root / "data", "--out", root / "cache", *teacher]
        student = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--batch-size", 128]
        trained = ["train", root / "cache", "--data", root / "data", "--out", root / "run", *student]
        trained += ["--epochs", args.epochs]
        stages = [
            watched("cache-features", cached, args.images, began),
            watched("train", trained, args.images * 9 // 10 * args.epochs, began),
        ]
    plot(args.plot or args.out.with_suffix(".png"), stages, args.images)
    found = {stage.name: stage.summary() for stage in stages}
    for name, numbers in found.items():
        print(f"{name:16}" + "  ".join(f"{what} {value:,.2f}" for what, value in numbers.items()))
    samples = {s.name: {"seconds": s.seconds, "memory": s.memory, "handles": s.handles} for s in stages}
    write_result(args, {"stages": found, "samples": samples}, torch.device("cpu"))


if __name__ == "__main__":
    run(main)
