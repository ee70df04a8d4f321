"""What every part is given, and what parts share."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.turns import Row, weights_of
from cache.runtime.atomic_files import replacing
from cache.sources.data import open_data
from cache.sources.samples import DataFolder

TEACHER = "ViT-L-14-quickgelu"
DEMO_TEACHER = Path(__file__).parents[2] / "distill" / "demo" / "teacher"
# From this much memory on a step takes batches of 256, below of 128, so that 16 GB are enough.
LARGE = 24e9
LEAST_STAGE_1, MOST_STEP, LEAST_PEAK = 0.95, 1.05, 0.55


@dataclass(frozen=True, kw_only=True)
class Work:
    """Where a part computes, in its ``small`` form or not; ``scratch`` is a folder that all parts share.

    ``keep`` writes a part's rows: all so far, as often as there are more.
    """

    device: torch.device
    small: bool
    scratch: Path
    keep: Callable[[Sequence[Row]], None]

    @property
    def batch_size(self) -> int:
        """How many images a training step takes."""
        if self.small:
            return 4
        total = torch.cuda.get_device_properties(self.device).total_memory if self.on_gpu else 0
        return 256 if total >= LARGE else 128

    @property
    def on_gpu(self) -> bool:
        """Whether the device is a GPU."""
        return self.device.type == "cuda"

    def goal(self, value: float, *, least: float | None = None, most: float = 0.0, of: str = "") -> Row:
        """Return what a table says of a goal, and whether ``value`` meets it; the small form has none."""
        if self.small:
            return {}
        if least is not None:
            return {"goal": f"at least {least:g}{of}", "met": "yes" if value >= least else "no"}
        return {"goal": f"at most {most:g}{of}", "met": "yes" if value <= most else "no"}

    def folder(self, name: str) -> Path:
        """Return a new folder."""
        return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=self.scratch))


def writer(path: Path) -> Callable[[Sequence[Row]], None]:
    """Return what writes a part's rows."""

    def write(rows: Sequence[Row]) -> None:
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(list(rows)), encoding="utf-8")

    return write


def arguments(options: Mapping[str, Any], **given: Any) -> argparse.Namespace:
    """Return a benchmark's arguments: those that are given, and its defaults."""
    defaults = {name: value[0] if isinstance(value, tuple) else value for name, value in options.items()}
    return argparse.Namespace(**defaults | {"rounds": 3, "one_process": True} | given)


def teacher_of(work: Work) -> dict[str, str]:
    """Return the teacher's name and its weights, which the first part that asks makes for all."""
    if work.small:
        return {"model": f"local-dir:{DEMO_TEACHER}", "weights": ""}
    made = work.scratch / "weights"
    if not (made / "random.pt").is_file():
        made.mkdir(exist_ok=True)
        temporary = work.folder("weights")
        weights_of(TEACHER, temporary)
        (temporary / "random.pt").replace(made / "random.pt")
    return {"model": TEACHER, "weights": str(made / "random.pt")}


def peak_gb(device: torch.device) -> float | None:
    """Return the most that tensors of this process took of a GPU, since it was last asked, in GB."""
    if device.type != "cuda":
        return None
    most = torch.cuda.max_memory_allocated(device) / 1e9
    torch.cuda.reset_peak_memory_stats(device)
    return most


def drawn_photos(out: Path, count: int, size: tuple[int, int], distinct: int = 256) -> DataFolder:
    """Draw so many JPEG files of ``size`` (width, height), of two classes; beyond ``distinct`` hard links."""
    rng = np.random.default_rng(0)
    for i in range(count):
        path = out / "train" / f"class_{i % 2}" / f"{i:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i >= distinct:
            os.link(out / "train" / f"class_{i % distinct % 2}" / f"{i % distinct:06d}.jpg", path)
            continue
        coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        grain = rng.normal(0, 6, (size[1], size[0], 1))
        pixels = np.asarray(coarse.resize(size, Image.Resampling.BICUBIC), dtype=np.float32) + grain
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path, quality=90)
    return open_data([out])
