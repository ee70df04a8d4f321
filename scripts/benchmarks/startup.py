"""Start-up and memory.

`distill train` from the shell to its first step's end, with the recipe's own settings but for 64 px, batch
32 and the losses mse and vlalign, on caches of random rows (D = 768) of tiny pictures (hard links to one a
class). The memory is the most of the process's own until then, resident.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.turns import Row, command_failed, medians, random_rows, tiny_photos
from distill.record.peak_memory import peak_resident
from distill.student.names import resolve

OPTIONS = {
    "rows": [10_000, 100_000],
    "classes": 200,
    "embed_dim": 768,
    "arch": "resnet18",
    "image_size": 64,
}
COLUMNS = {"rows": "{:,}", "first step after": "{:.2f} s", "peak resident memory": "{:.2f} GB"}


def first_step(folder: Path, out: Path, args: argparse.Namespace) -> dict[str, float]:
    """Return the seconds to the first checkpoint, and the most gigabytes that were resident until then."""
    words = ["train", folder / "cache", "--data", folder / "data", "--out", out, "--arch", args.arch]
    words += ["--image-size", args.image_size, "--batch-size", 32, "--set", "train.checkpoint_steps=1"]
    words += ["--recipe", "paper-resnet18"]
    words += ["--set", "loss.vlalign=1", "--set", "loss.mse=1"]
    command = [sys.executable, "-P", "-m", "cli", *map(str, words)]
    with tempfile.TemporaryFile("w+") as output:
        began = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=output)
        try:
            while not (out / "last.pt").exists():
                if process.poll() is not None:
                    output.seek(0)
                    raise command_failed("distill train", process.returncode, output.read())
                time.sleep(0.02)
            seconds = time.perf_counter() - began
            resident = peak_resident(process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()
    return {"first step after": seconds, "peak resident memory": resident / 1e9}


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Start it again and again for every number of rows."""
    resolve(args.arch)
    table, details = [], []
    for rows in args.rows:
        with tempfile.TemporaryDirectory() as scratch:
            data, cache = Path(scratch) / "data", Path(scratch) / "cache"
            photos = tiny_photos(data, classes=args.classes, images=rows // args.classes)
            random_rows(cache, photos, embed_dim=args.embed_dim)
            # The first start, which is not counted, computes and keeps the nearest texts.
            starts = [
                first_step(Path(scratch), Path(scratch) / f"run{i}", args) for i in range(args.rounds + 1)
            ]
        table.append({"rows": rows, **medians(starts[1:])})
        details.append(starts)
    return table, details
