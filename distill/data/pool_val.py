"""Images of a pool alone that are set aside: nothing is learnt from them, and the teacher says what they are.

Its answers are the only yardstick where no image has a label: how often a student gives them is an agreement,
and no accuracy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache import EmbeddingCache
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Sample
from cache.sources.splits import POOL
from cache.store.neighbours import unit_rows
from distill.config import RunConfig
from distill.data.id_val import shares_of
from distill.data.pool import classes_of_texts

ROWS_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """A ``sample`` without a label, whose class is the teacher's ``answer``."""

    sample: Sample
    answer: str

    @property
    def key(self) -> str:
        """The sample's."""
        return self.sample.key

    @property
    def labels(self) -> tuple[str, ...]:
        """The answer."""
        return (self.answer,)

    @property
    def caption(self) -> str | None:
        """The sample's."""
        return self.sample.caption

    @property
    def where(self) -> str:
        """The sample's."""
        return self.sample.where

    @property
    def views(self) -> tuple[str, ...]:
        """The sample's."""
        return self.sample.views

    def pictures(self) -> Sequence[Image.Image]:
        """Return the sample's."""
        return self.sample.pictures()

    def content(self) -> bytes:
        """Return the sample's."""
        return self.sample.content()

    def identity(self) -> tuple[str, int, int]:
        """Return the sample's."""
        return self.sample.identity()

    def status(self) -> tuple[int, int]:
        """Return the sample's."""
        return self.sample.status()


def pool_aside(images: Sequence[Sample], share: float) -> NDArray[np.bool_]:
    """Say of each image of a pool whether it is set aside: by the hash of its key, one at least."""
    if not share:
        return np.zeros(len(images), dtype=bool)
    drawn = shares_of(hashes_of(image.key for image in images))
    return drawn < max(share, np.nextafter(drawn.min(), 1))


def as_teacher_says(
    cache: EmbeddingCache, config: RunConfig, images: Sequence[Sample], at: NDArray[np.int64]
) -> tuple[Sample, ...]:
    """Return images of the pool, whose rows are ``at``, with the class of the teacher's nearest text.

    They stay without one where the run has no texts. UserError if the run's text bank has no classes.
    """
    if not images or not config.text:
        return tuple(images)
    teacher = cache.teacher_cache(config.teachers[0])
    names = classes_of_texts(teacher, config.text)
    texts = unit_rows(teacher.text_bank(config.text).class_texts(names))
    rows = teacher.split(POOL).embeddings
    blocks = (at[start : start + ROWS_AT_ONCE] for start in range(0, len(at), ROWS_AT_ONCE))
    nearest = np.concatenate([(rows[block].astype(np.float32) @ texts.T).argmax(axis=1) for block in blocks])
    return tuple(
        Answered(sample=image, answer=names[answer])
        for image, answer in zip(images, nearest.tolist(), strict=True)
    )
