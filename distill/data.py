"""Images joined to cache rows by key, and the batches that training sees."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache import EmbeddingCache
from cache.errors import CacheMismatch, UserError
from cache.images import ImageFolder, ImageRecord
from cache.reader import SplitRows
from distill.batch import Batch
from distill.config import LossConfig
from distill.pixels import Pixels


@dataclass(frozen=True, kw_only=True)
class TrainingRows:
    """The training images that have a teacher row, and that row's number in the cache.

    ``id_val`` are images of the same kind set aside to choose on; ``left_out`` counts images without a row.
    """

    rows: SplitRows
    images: tuple[ImageRecord, ...]
    row_of: NDArray[np.int64]
    id_val: tuple[ImageRecord, ...] = ()
    left_out: int = 0


def join_training_rows(cache: EmbeddingCache, folder: ImageFolder, *, id_val: float = 0.0) -> TrainingRows:
    """Join DATA's training images to the cache's rows by key.

    ``id_val`` is the share of images set aside, chosen by the hash of their key, so that the same
    images are set aside on every machine and whatever is added later; each class keeps at least one
    training image.

    Raises
    ------
    CacheMismatch
        If the class folders differ, or no image has a row.
    """
    split, rows = folder.split("train"), cache.split("train")
    if split.class_names != rows.class_names:
        only_here = sorted(set(split.class_names) - set(rows.class_names))
        only_there = sorted(set(rows.class_names) - set(split.class_names))
        raise CacheMismatch(
            f"the training classes of {folder.path} and of {cache.path} differ "
            f"(only in the data: {only_here[:3] or 'none'}; only in the cache: {only_there[:3] or 'none'})",
            fix="give the data folder that the cache was made from.",
        )
    found = [image for image in split.images if image.key in rows.position]
    if not found:
        raise CacheMismatch(
            f"none of the {len(split.images)} training images of {folder.path} has a row in {cache.path} "
            f"(images like {split.images[0].key!r}, rows like {rows.keys[0]!r})",
            fix="give the data folder that the cache was made from.",
        )
    chosen, aside = _set_aside(found, id_val)
    return TrainingRows(
        rows=rows,
        images=tuple(chosen),
        row_of=np.array([rows.position[image.key] for image in chosen], dtype=np.int64),
        id_val=tuple(aside),
        left_out=len(split.images) - len(found),
    )


def _set_aside(images: Sequence[ImageRecord], share: float) -> tuple[list[ImageRecord], list[ImageRecord]]:
    if not share:
        return list(images), []
    aside = {image.key for image in images if _hash_share(image.key) < share}
    for label in {image.label for image in images}:
        of_class = [image.key for image in images if image.label == label]
        if aside.issuperset(of_class):
            aside.discard(max(of_class, key=_hash_share))
    return [i for i in images if i.key not in aside], [i for i in images if i.key in aside]


def _hash_share(key: str) -> float:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") / 2**64


def epoch_batches(
    count: int, *, batch_size: int, repeats: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Return an epoch's batches of image indices: ``repeats`` permutations one after the other.

    A function of seed and epoch alone. A last batch of one image is left out: batch norm cannot
    train on it.
    """
    rng = np.random.default_rng([seed, epoch])
    order = np.concatenate([rng.permutation(count) for _ in range(repeats)])
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    return [batch for batch in batches if len(batch) > 1]


@dataclass(kw_only=True)
class TrainingData:
    """Everything a training batch is made of; targets are gathered here, in the main process."""

    joined: TrainingRows
    pixels: Pixels
    nearest: NDArray[np.int32] | None = None
    similarity: NDArray[np.float32] | None = None
    with_captions: bool = False
    keys: list[str] = field(init=False)

    def __post_init__(self) -> None:
        self.keys = [image.key for image in self.joined.images]

    def batches(self, indices: Sequence[NDArray[np.int64]]) -> Iterator[Batch]:
        """Yield the batches of these images."""
        for chosen, images in self.pixels.batches(indices):
            yield self._batch(chosen, images)

    def _batch(self, chosen: NDArray[np.int64], images: Tensor) -> Batch:
        rows, at = self.joined.rows, self.joined.row_of[chosen]
        captions = rows.caption_embeddings if self.with_captions else None
        return Batch(
            keys=tuple(self.keys[i] for i in chosen),
            image_B3RR=images,
            label_B=torch.from_numpy(rows.labels[at]),
            teacher_BD=torch.from_numpy(rows.embeddings[at]).float(),
            caption_BD=torch.from_numpy(captions[at]).float() if captions is not None else None,
            nearest_BK=torch.from_numpy(self.nearest[at]) if self.nearest is not None else None,
            similarity_BK=torch.from_numpy(self.similarity[at]) if self.similarity is not None else None,
        )


def training_data(
    cache: EmbeddingCache, joined: TrainingRows, pixels: Pixels, loss: LossConfig, text: str
) -> TrainingData:
    """Return the training data with the targets that ``loss`` needs.

    Raises
    ------
    UserError
        If captions are asked for and the cache has none.
    """
    if loss.cap and joined.rows.caption_embeddings is None:
        raise UserError(
            f"loss.cap is on, but the cache {cache.path} has no captions of the training images",
            fix="run cache-features again with --captions, or set loss.cap=0.",
        )
    nearest = similarity = None
    if loss.vlalign:
        nearest, similarity = cache.neighbours("train", text, loss.vlalign_k)
    return TrainingData(
        joined=joined, pixels=pixels, nearest=nearest, similarity=similarity, with_captions=bool(loss.cap)
    )
