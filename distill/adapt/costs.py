"""Time and disk, told before it begins; the image size and the epochs that fit a budget."""

from __future__ import annotations

import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from cache.build.from_folder import FeatureOptions
from cache.runtime.amounts import in_bytes
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
# Three runs with their optimisers' states, two exports.
RUNS = 300_000_000
# Of each split, images that a model's files are compared with its student on, twice each: of the first model,
# which is to be there soon, where a budget has little room, and at most.
FEW_CHECKED, LEAST_CHECKED, MOST_CHECKED = 500, 100, 2000
# Of what is left before the first model is there, what that may take.
FIRST_CHECK = 0.1
# A head on features: its epochs, and its steps where there are many images, which nothing stops halfway.
HEAD_EPOCHS, HEAD_STEPS, FEW_HEAD_EPOCHS, HEAD_BATCH = 30, 3000, 3, 128
# Seconds that a model's files take beside what they are compared on, and those of report and latency, until
# the first have been measured; a head's are by its steps.
EXPORT, REPORT, HEAD_STEP = 8.0, 15.0, 0.05


@dataclass(frozen=True, kw_only=True)
class Pace:
    """Seconds of a run at some image ``size``, as :func:`distill.train.plan.plan` finds them.

    ``features`` are those of all images, ``judging`` is of all ``splits``, an ``image`` is judged in so long;
    ``export`` is what a model's files take beside what they are compared on, ``head`` a head on features.
    """

    size: int
    epoch: float
    features: float
    judging: float
    image: float = 0.0
    export: float = 0.0
    report: float = 0.0
    head: float = 0.0
    splits: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of(cls, planned: Mapping[str, Any], size: int) -> Pace:
        """Read a plan of one epoch."""
        seconds, images = planned["seconds"], planned["images"]
        return cls(
            size=size,
            epoch=seconds["training"],
            features=seconds["features"],
            judging=seconds["judging"],
            image=seconds["image"],
            export=EXPORT,
            report=REPORT,
            head=head_seconds(images["train"] + images["pool"]),
            splits=dict(planned["judged"]),
        )

    def at(self, size: int) -> Pace:
        """Return what it would be at another size: work goes by the number of pixels."""
        share = (size / self.size) ** 2
        names = ("epoch", "features", "judging", "image")
        return replace(self, size=size, **{name: share * getattr(self, name) for name in names})

    def exporting(self, most: int) -> float:
        """Return what an export takes that is compared on ``most`` images of each split."""
        return self.export + self._checking(most)

    def exported(self, most: int, seconds: float) -> Pace:
        """Return it as an export says that took so long: what it takes beside what it is compared on."""
        return replace(self, export=max(EXPORT / 4, seconds - self._checking(most)))

    def checked(self, seconds: float) -> int:
        """Return how many images of each split an export can be compared on in so long."""
        counts = range(MOST_CHECKED, LEAST_CHECKED, -LEAST_CHECKED)
        return next((most for most in counts if self.exporting(most) <= seconds), LEAST_CHECKED)

    @property
    def before(self) -> float:
        """What comes before the trunk is trained: features, a head, two models."""
        return self.features + self.head + self.exporting(LEAST_CHECKED) + self.exporting(FEW_CHECKED)

    @property
    def after(self) -> float:
        """What comes after the trunk's last step: the trained student is judged, and shipped."""
        return self.judging + self.exporting(FEW_CHECKED) + self.report

    def _checking(self, most: int) -> float:
        return 2 * self.image * sum(min(most, count) for count in self.splits.values())


def head_epochs(images: int) -> int:
    """Return for how many epochs a head is trained on so many images' features."""
    return max(FEW_HEAD_EPOCHS, min(HEAD_EPOCHS, HEAD_STEPS * HEAD_BATCH // max(images, 1)))


def head_seconds(images: int) -> float:
    """Return what that takes, or so."""
    return HEAD_STEP * head_epochs(images) * -(-images // HEAD_BATCH)


def fitted(pace: Pace, seconds: float, *, epochs: int) -> tuple[int, int]:
    """Return the image size and the epochs, ``epochs`` at most, that so many seconds have room for.

    The largest size at which some epochs fit; 0 epochs, and a size at which the features alone do, where not
    one fits.
    """
    at = {size: pace.at(size) for size in SIZES}
    many = {size: epochs_left(one, seconds - one.before / MARGIN, epochs=epochs) for size, one in at.items()}
    for least in (min(FEW_EPOCHS, epochs), 1):
        if size := next((size for size in SIZES if many[size] >= least), 0):
            return size, many[size]
    left = seconds * MARGIN - pace.report
    return next((size for size, one in at.items() if one.before <= left), SIZES[-1]), 0


def epochs_left(pace: Pace, seconds: float, *, epochs: int) -> int:
    """Return how many epochs fit, ``epochs`` at most, once the features are there."""
    return max(0, min(epochs, int((seconds * MARGIN - pace.after) / max(pace.epoch, 1e-9))))


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
            f"{out} will take about {in_bytes(needed)}, and its disk has {in_bytes(free)} left",
            fix="make room, or choose another --out.",
        )
