"""An epoch's batches: read, decoded, augmented and moved once for every student that takes them."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache.runtime.transfer import to_device
from distill.data.batch import Batch, Crops, own_share
from distill.data.training_data import BatchColumns, TrainingData
from distill.train.seeds import stream_generator
from distill.train.session import Session


@dataclass(frozen=True, kw_only=True)
class SharedBatch:
    """One batch of a stream; ``seconds`` is what it took to make, which counts for each student alone."""

    step: int
    chosen: NDArray[np.int64]
    images: Tensor
    crops: Crops | None
    columns: BatchColumns
    seconds: float

    def of(self, data: TrainingData) -> Batch:
        """Return the batch with what the teachers of one student said of it."""
        return data.batch(self.chosen, self.images, self.crops, self.columns)


def shared_batches(session: Session, epoch: int, *, first: int) -> Iterator[SharedBatch]:
    """Yield an epoch's batches from step ``first`` on, of the stream that a session has."""
    data, model = session.data, session.model
    batches, began = session.batches_of(epoch), time.perf_counter()
    for step, (chosen, decoded) in enumerate(data.images(batches[first:]), start=first):
        generator = stream_generator(session.config.stream_seed, epoch, step)
        crops = data.crops(chosen, generator)
        images = model.augment(to_device(decoded, model.device), generator, own_share(len(chosen)), crops)
        yield SharedBatch(
            step=step,
            chosen=chosen,
            images=images,
            crops=crops,
            columns=BatchColumns(chosen, model.device),
            seconds=time.perf_counter() - began,
        )
        began = time.perf_counter()
