"""The features of a frozen trunk, kept: a second head on it decodes no image.

``features--DIGEST/SPLIT-DIGEST.h5``, of a trunk's weights and how it sees, and of a split's images:
``features`` float32 [N, F], in the order of the hashes of the images' keys, and ``readable`` uint8 [N]. They
lie in ``features`` of the cache, or where that cannot be written in that of the run. They are computed in
float32, whatever a student is trained in: heads live on their small differences.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from cache.runtime.transfer import to_device
from cache.sources.key_hashes import hashes_of
from cache.store.hdf5_columns import Blocks, Forms, map_columns, write_columns
from cache.store.read_errors import reading
from distill.data.pixels import Pixels
from distill.judge.model import Model
from distill.student.trunk_features import (
    DIGITS,
    check_head,
    trunk_digest,
    trunk_features,
    trunk_features_and_outputs,
)

FOLDER = "features"
# Which way of making features; those that were made in another are not looked at.
FORM = 1
_FORMS: Forms = {"features": ("f", (2,)), "readable": ("u", (1,))}
Indices = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Features:
    """The features of n images: those of image i are row ``row_of[i]`` of ``rows``, float32, mapped.

    ``readable`` bool [n] says which could be read; the others have none.
    """

    rows: NDArray[np.float32]
    row_of: Indices
    readable: NDArray[np.bool_]

    @property
    def width(self) -> int:
        """F, how many numbers an image has."""
        return self.rows.shape[1]

    def __len__(self) -> int:
        return len(self.row_of)

    def of(self, images: Indices) -> torch.Tensor:
        """Return the features of some images, [B, F]."""
        return torch.from_numpy(self.rows[self.row_of[images]])


class FeatureFiles:
    """Makes the features of a model's trunk at the evaluation's crop, and finds them again."""

    def __init__(self, model: Model, out: Path, *, progress: Progress | None = None) -> None:
        """``out`` is the folder of the run."""
        self.model, self.progress = model, progress or Silent()
        decode: Any = model.augment.eval_decode
        # What the trunk sees of a picture, by an example: size, crop, mean and deviation.
        picture = torch.arange(math.prod(decode.shape)).to(decode.dtype).view(1, *decode.shape)
        shown = sha256(model.augment.plain(picture).numpy().tobytes()).hexdigest()
        seen = [FORM, trunk_digest(model.student), str(decode), shown, model.device.type]
        self.name = f"{FOLDER}--{digest(seen)[:DIGITS]}"
        self._places = [model.cache.path / FOLDER / self.name, out / FOLDER / self.name]

    def of(self, split: str, parts: Sequence[Pixels]) -> list[Features]:
        """Return the features of images of a split, one for each of its parts; made where there are none.

        UserError if the student's head takes no features, or they cannot be written.
        """
        samples = [sample for part in parts for sample in part.samples]
        hashes = hashes_of(sample.key for sample in samples)
        order = np.argsort(hashes, kind="stable")
        about = np.array([_status(sample) for sample in samples], dtype=np.int64).reshape(len(samples), 2)
        compressed = any(part.stored is not None and not part.stored.raw for part in parts)
        images = sha256(hashes[order].tobytes() + about[order].tobytes() + bytes([compressed])).hexdigest()
        row_of = np.empty(len(order), dtype=np.int64)
        row_of[order] = np.arange(len(order))
        file = f"{split}-{images[:DIGITS]}.h5"
        arrays = self._found(file, len(samples)) or self._made(file, parts, row_of)
        ends = np.cumsum([len(part.samples) for part in parts])[:-1]
        features = [
            Features(rows=arrays["features"], row_of=own, readable=arrays["readable"][own] > 0)
            for own in np.split(row_of, ends)
        ]
        for part, own in zip(parts, features, strict=True):
            _look_again(part, own)
        return features

    def _found(self, file: str, count: int) -> dict[str, Any] | None:
        for place in self._places:
            path = place / file
            # One that is damaged is made again.
            with contextlib.suppress(UserError):
                if path.is_file():
                    with reading(path):
                        arrays = map_columns(path, _FORMS)
                        if {len(values) for values in arrays.values()} != {count}:
                            raise ValueError("it is of other images")
                    return arrays
        return None

    def _made(self, file: str, parts: Sequence[Pixels], row_of: Indices) -> dict[str, Any]:
        place = self._writable()
        readable = np.zeros(len(row_of), dtype=np.uint8)
        self.progress.start(len(row_of), f"features of {file.partition('-')[0]}", "images")
        blocks = Blocks(
            shape=(len(row_of), self._width()),
            dtype=np.dtype(np.float32),
            blocks=self._blocks(parts, row_of, readable),
        )
        write_columns(place / file, {"features": blocks, "readable": readable})
        arrays = self._found(file, len(row_of))
        if arrays is None:
            raise UserError(f"{place / file} cannot be read back", fix="look at that disk.")
        return arrays

    def _writable(self) -> Path:
        """Return the first place that can be written, a folder that is there."""
        for place in self._places[:-1]:
            with contextlib.suppress(OSError):
                place.mkdir(parents=True, exist_ok=True)
                (place / ".written").touch()
                (place / ".written").unlink()
                return place
        self._places[-1].mkdir(parents=True, exist_ok=True)
        return self._places[-1]

    @torch.no_grad()
    def _width(self) -> int:
        """Return how many features an image has; UserError where the head takes none."""
        model, side = self.model, self.model.config.student.image_size
        images = torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0)).to(model.device)
        with _evaluated(model):
            features, outputs = trunk_features_and_outputs(model.student, images)
            check_head(model.student, features, outputs, arch=model.config.student.arch)
        return features.shape[1]

    @torch.no_grad()
    def _blocks(
        self, parts: Sequence[Pixels], row_of: Indices, readable: NDArray[np.uint8]
    ) -> Iterator[tuple[Indices, Sequence[NDArray[np.float32]]]]:
        """Yield (rows, features) of all images that can be read, and note which these are."""
        model, size, first = self.model, self.model.config.train.eval_batch_size, 0
        with _evaluated(model):
            for part in parts:
                order = np.arange(len(part.samples))
                batches = [order[start : start + size] for start in range(0, len(order), size)]
                for indices, images in part.batches(batches):
                    if not len(indices):
                        continue
                    seen: Any = model.augment.plain(to_device(images, model.device))
                    features = trunk_features(model.student, seen).cpu().numpy()
                    rows = row_of[first + indices]
                    readable[rows], rising = 1, np.argsort(rows)
                    yield rows[rising], [*features[rising]]
                    self.progress.advance(len(indices))
                first += len(order)


@contextlib.contextmanager
def _evaluated(model: Model) -> Iterator[None]:
    training = model.student.training
    model.student.eval()
    try:
        yield
    finally:
        model.student.train(training)


def _status(sample: Any) -> tuple[int, int]:
    """Return size and time of an image's file, nothing where that is not to be had."""
    try:
        size, mtime_ns = sample.status()
    except OSError:
        return 0, 0
    return size, mtime_ns


def _look_again(pixels: Pixels, features: Features) -> None:
    """Try those images again that could not be read: then ``pixels`` knows why."""
    unread = np.flatnonzero(~features.readable).tolist()
    missing = [i for i in unread if pixels.samples[i].key not in pixels.unreadable]
    if missing:
        for _ in pixels.batches([np.array(missing, dtype=np.int64)]):
            pass
