"""Training images to show beside an answer: those nearest to an image in the teacher's space."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from cache.runtime.atomic_files import replacing
from cache.sources.image_folder import ImageSample
from cache.store.npz_files import read_npz, values_of
from distill.deploy.class_sets import ClassSet, unit
from distill.deploy.info import undamaged

if TYPE_CHECKING:
    from distill.judge.trained_run import TrainedRun
    from distill.student.heads import Head

NEAREST_IMAGES = "nearest_images.npz"


@dataclass(frozen=True, kw_only=True)
class NearestImages:
    """n images: keys, labels, the teacher's unit embeddings [n, D], small JPEG files."""

    keys: tuple[str, ...]
    labels: tuple[str, ...]
    embeddings: NDArray[np.float16]
    pictures: tuple[bytes, ...]

    def nearest(self, embedding: NDArray[np.float32], k: int) -> list[tuple[int, float]]:
        """Return the places and cosines of the ``k`` images nearest to one embedding [D], best first."""
        cosines = self._rows @ embedding
        return [(int(i), float(cosines[i])) for i in np.argsort(-cosines, kind="stable")[:k]]

    @cached_property
    def _rows(self) -> NDArray[np.float32]:
        return self.embeddings.astype(np.float32)

    def save(self, path: Path) -> None:
        """Write plain arrays that numpy reads without pickle, whole or not at all."""
        with replacing(path) as temporary, open(temporary, "wb") as file:
            np.savez(
                file,
                keys=np.array(self.keys, dtype=np.str_),
                labels=np.array(self.labels, dtype=np.str_),
                embeddings=self.embeddings,
                ends=np.cumsum([len(picture) for picture in self.pictures], dtype=np.int64),
                jpeg=np.frombuffer(b"".join(self.pictures), dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: Path) -> NearestImages:
        """Read what :meth:`save` wrote; UserError when it is damaged."""
        with undamaged(path):
            file = read_npz(path)
            ends, jpeg = values_of(file["ends"], "i"), file["jpeg"].tobytes()
            images = cls(
                keys=tuple(values_of(file["keys"], "U")),
                labels=tuple(values_of(file["labels"], "U")),
                embeddings=file["embeddings"],
                pictures=tuple(jpeg[start:end] for start, end in pairwise([0, *ends])),
            )
            columns = (images.keys, images.labels, images.pictures, images.embeddings)
            if len({len(column) for column in columns}) > 1:
                raise ValueError("its columns differ in length")
            return images


def nearest_images_of(
    trained: TrainedRun, head: Head, classes: ClassSet, *, most: int
) -> NearestImages | None:
    """Return ``most`` training images, as many of every class as of any other; None where there are none."""
    from distill.deploy.check import sampled
    from distill.train.outputs_of_run import small_jpeg

    if "train" not in head.cache.split_names or "train" not in trained.folder.splits:
        return None
    rows, images = head.cache.split("train"), trained.folder.split("train").all()
    joined = trained.identities.joined("train")
    # The picture of an image that has changed would stand beside another's embedding.
    changed = set(joined.changed)
    with_row = (images[i] for i in np.flatnonzero(joined.row_of >= 0).tolist())
    some: list[ImageSample] = sampled(
        [image for image in with_row if image.labels and image.key not in changed], most
    )
    label_of = dict(zip(classes.classes, classes.labels, strict=True))
    pixels = trained.pixels(some, "train")
    pictures: dict[int, bytes] = {}
    for indices, decoded in pixels.batches([np.arange(len(some))] if some else []):
        pictures |= {int(i): small_jpeg(image) for i, image in zip(indices, decoded, strict=True)}
    if not pictures:
        return None
    kept = [some[i] for i in sorted(pictures)]
    names = [image.labels[0] for image in kept]
    teacher = rows.embeddings[rows.find([image.key for image in kept])]
    return NearestImages(
        keys=tuple(image.key for image in kept),
        labels=tuple(label_of.get(name, name) for name in names),
        embeddings=unit(head.in_its_space(torch.from_numpy(teacher)).numpy()).astype(np.float16),
        pictures=tuple(pictures[i] for i in sorted(pictures)),
    )
