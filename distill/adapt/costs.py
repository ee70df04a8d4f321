"""Time and disk, told before it begins; the image size and the epochs that fit a budget."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cache.build.from_folder import FeatureOptions
from cache.runtime.errors import UserError

# Sides in pixels, the best that fits first: a larger one is worth points, and its cost grows with its square.
SIZES = (160, 128, 96)
# Fewer epochs move a trunk too little to be worth what they lose in size.
FEW_EPOCHS = 3
# Of what is left: what a probe does not see, reading and writing.
MARGIN = 0.85
PROBED = 4
# Bytes of an image: its row of so many numbers and what is kept of its file; the features of the trunk.
ABOUT_FILE, FEATURES = 200, 4 * 4128
# Two runs with their optimisers' states, two exports.
RUNS = 250_000_000


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a run at some image ``size``, as :func:`distill.train.plan.plan` finds them."""

    size: int
    epoch: float
    features: float
    judging: float

    @classmethod
    def of(cls, planned: Mapping[str, Any], size: int) -> Pace:
        """Read a plan of one epoch."""
        seconds = planned["seconds"]
        return cls(
            size=size,
            epoch=seconds["training"],
            features=seconds["features"],
            judging=seconds["judging"],
        )

    def at(self, size: int) -> Pace:
        """Return what it would be at another size: work goes by the number of pixels."""
        share = (size / self.size) ** 2
        return Pace(
            size=size, epoch=self.epoch * share, features=self.features * share, judging=self.judging * share
        )


def fitted(pace: Pace, seconds: float, *, epochs: int) -> tuple[int, int]:
    """Return the image size and the epochs, ``epochs`` at most, that so many seconds have room for.

    The largest size at which some epochs fit; 0 epochs, and a size at which the features alone do, where not
    one fits.
    """
    left = seconds * MARGIN
    many = {size: min(epochs, _epochs_in(pace.at(size), left)) for size in SIZES}
    for least in (min(FEW_EPOCHS, epochs), 1):
        if size := next((size for size in SIZES if many[size] >= least), 0):
            return size, many[size]
    return next((size for size in SIZES if pace.at(size).features <= left), SIZES[-1]), 0


def epochs_left(pace: Pace, seconds: float, *, epochs: int) -> int:
    """Return how many epochs fit, ``epochs`` at most, once the features are there."""
    return max(0, min(epochs, int((seconds * MARGIN - 2 * pace.judging) / max(pace.epoch, 1e-9))))


def _epochs_in(pace: Pace, seconds: float) -> int:
    left = seconds - pace.features - 2 * pace.judging
    return max(0, int(left / max(pace.epoch, 1e-9)))


def teachers_pace(options: FeatureOptions, cache: Path) -> tuple[float, float, int]:
    """Return the seconds that the teacher takes for an image and for a text, and the numbers of a row.

    By a few of each.
    """
    teacher = options.load_for(cache)
    if not teacher.reads_texts:
        raise UserError(
            f"the teacher {options.model} reads no texts, and what is adapted needs names",
            fix="choose one that does, such as CLIP; or make a cache of it with labelled images "
            "(cache-features), add class means to it (cache add-texts --bank labels --from-images), and give "
            "it with --cache.",
        )
    one: Any = teacher.transform(Image.new("RGB", (256, 256)))
    batch = torch.stack([one] * (PROBED if teacher.device.type == "cpu" else 64))
    ends = [time.perf_counter()]
    for _ in range(3):  # the first makes what the others find
        teacher.embed_images(batch)
        ends.append(time.perf_counter())
    image = min(after - before for before, after in pairwise(ends)) / len(batch)
    texts = [f"a photo of {number}" for number in range(16 * PROBED)]
    teacher.embed_texts(texts[:PROBED])
    began = time.perf_counter()
    teacher.embed_texts(texts)
    return image, (time.perf_counter() - began) / len(texts), teacher.embed_dim


def bytes_needed(images: int, embed_dim: int) -> int:
    """Return what an adaptation takes on the disk, or so."""
    return images * (2 * embed_dim + ABOUT_FILE + FEATURES) + RUNS


def check_room(out: Path, needed: int) -> None:
    """Raise a UserError where a disk has less room than is needed."""
    there = next(folder for folder in (out, *out.resolve().parents) if folder.is_dir())
    free = shutil.disk_usage(there).free
    if free < needed:
        raise UserError(
            f"{out} will take about {needed / 1e6:,.0f} MB, and its disk has {free / 1e6:,.0f} MB left",
            fix="make room, or choose another --out.",
        )
