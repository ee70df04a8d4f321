"""How long `distill train` takes to its first step, and what memory it holds, by the number of rows.

    python scripts/bench_startup.py --rows 10000,100000 --rounds 2

For every number of rows it makes a data folder of tiny pictures (hard links to one a class) and a cache of
random rows, starts the command as a process, and looks for the checkpoint that it writes after its first
step. Memory is the most that the process held of its own until then, resident. Prints a table of medians,
writes JSON.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench_parts import leave_as, listed, medians, parser_of, random_rows, run, whole, write_result
from cache.runtime.devices import choose_device
from cache.sources.image_folder import ImageFolder
from distill.record.peak_memory import peak_resident
from distill.student.build import resolve


def make(folder: Path, rows: int, classes: int, embed_dim: int) -> tuple[Path, Path]:
    """Make a data folder of so many training pictures and its cache of random rows; return both."""
    rng = np.random.default_rng(0)
    data = folder / "data"
    shutil.rmtree(data, ignore_errors=True)
    shutil.rmtree(folder / "cache", ignore_errors=True)
    picture = Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8))
    for split, count in (("train", rows), ("val", 4)):
        for c in range(classes if split == "train" else 2):
            place = data / split / f"{split}_{c:05d}"
            place.mkdir(parents=True)
            picture.save(place / "000000.jpg")
            for i in range(1, max(1, count // classes)):
                os.link(place / "000000.jpg", place / f"{i:06d}.jpg")
    random_rows(folder / "cache", ImageFolder.scan(data), embed_dim=embed_dim)
    return data, folder / "cache"


def first_step(data: Path, cache: Path, out: Path, arch: str, image_size: int) -> dict[str, float]:
    """Return the seconds to the first checkpoint, and the most gigabytes that were resident until then."""
    shutil.rmtree(out, ignore_errors=True)
    settings = ["train.checkpoint_steps=1", "loss.vlalign=1", "loss.mse=1"]
    command = [sys.executable, "-P", "-m", "cli", "train", str(cache), "--data", str(data), "--out", str(out)]
    command += ["--arch", arch, "--image-size", str(image_size), "--batch-size", "32"]
    command += [word for setting in settings for word in ("--set", setting)]
    with tempfile.TemporaryFile("w+") as said:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        try:
            while not (out / "last.pt").exists():
                if process.poll() is not None:
                    said.seek(0)
                    leave_as("distill train", process.returncode, said.read())
                time.sleep(0.02)
            seconds = time.perf_counter() - began
            resident = peak_resident(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return {"seconds": seconds, "gigabytes": resident / 1e9}


def main() -> None:
    """Parse, measure, print."""
    parser = parser_of(__file__, __doc__, rounds=3)
    parser.add_argument("--rows", type=listed(whole(1)), default="10000,100000")
    parser.add_argument("--classes", type=whole(1), default=200)
    parser.add_argument("--embed-dim", type=whole(1), default=768)
    parser.add_argument("--arch", default="resnet18")
    parser.add_argument("--image-size", type=whole(1), default=64)
    args = parser.parse_args()
    resolve(args.arch)
    result: dict[str, Any] = {}
    print(f"{'rows':>12}{'first step, s':>16}{'peak, GB':>16}")
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as folder:
            data, cache = make(Path(folder), rows, args.classes, args.embed_dim)
            # The first start computes and keeps the nearest texts, as cache-features does.
            first_step(data, cache, Path(folder) / "run", args.arch, args.image_size)
            found = [
                first_step(data, cache, Path(folder) / "run", args.arch, args.image_size)
                for _ in range(args.rounds)
            ]
        medium = medians(found)
        result[str(rows)] = {"rounds": found, **medium}
        print(f"{rows:12,}{medium['seconds']:16.2f}{medium['gigabytes']:16.2f}", flush=True)
    write_result(args, result, choose_device("auto"))


if __name__ == "__main__":
    run(main)
