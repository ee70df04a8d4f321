"""An epoch's batches: read, decoded, augmented and moved once for every student that takes them.

All that is random in a step is a function of seed, epoch and step, so that resuming changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from cache.runtime.distributed import current_ranks
from cache.runtime.transfer import to_device
from distill.config import RunConfig
from distill.data.batch import Batch, Crops, Mix, own_share
from distill.data.tar_epoch import TarEpoch
from distill.data.tar_stream import StreamedData
from distill.data.training_data import TrainingData
from distill.judge.model import Model
from distill.train.mixup import drawn_mix, mixed_images


class BatchSource(Protocol):
    """What batches are made of: a session of training, or what a trained student is fitted with."""

    @property
    def data(self) -> TrainingData | StreamedData:
        """The images and their rows."""

    @property
    def model(self) -> Model:
        """Whose augmentation it is."""

    @property
    def config(self) -> RunConfig:
        """The run's config."""

    def batches_of(self, epoch: int) -> Sequence[NDArray[np.int64]] | TarEpoch:
        """Return the image indices of an epoch's batches, or the steps of a stream."""


@dataclass(frozen=True, kw_only=True)
class SharedBatch:
    """One batch of a stream, which knows what ``chosen`` and ``columns`` are.

    ``seconds`` is what it took to make, which counts for each student alone.
    """

    step: int
    chosen: Any
    images: Tensor
    crops: Crops | None
    columns: Any
    mix: Mix | None
    seconds: float

    def of(self, data: TrainingData | StreamedData) -> Batch:
        """Return the batch with the targets of one student's teachers."""
        batch = data.batch(self.chosen, self.images, self.crops, self.columns)
        return batch if self.mix is None else replace(batch, mix=self.mix)


def shared_batches(session: BatchSource, epoch: int, *, first: int) -> Iterator[SharedBatch]:
    """Yield an epoch's batches from step ``first`` on, of the stream that a session has."""
    data: Any = session.data
    model = session.model
    batches, began = session.batches_of(epoch), time.perf_counter()
    for step, (chosen, decoded) in enumerate(data.images(batches[first:]), start=first):
        generator = stream_generator(session.config.stream_seed, epoch, step)
        crops = data.crops(chosen, generator)
        images = model.augment(to_device(decoded, model.device), generator, own_share(len(chosen)), crops)
        mix = drawn_mix(session.config, epoch, step, len(chosen), model.device)
        yield SharedBatch(
            step=step,
            chosen=chosen,
            images=mixed_images(images, mix),
            crops=crops,
            columns=data.columns(chosen, model.device),
            mix=mix,
            seconds=time.perf_counter() - began,
        )
        began = time.perf_counter()


def stream_generator(seed: int, epoch: int, step: int) -> Generator:
    """Return what a step's augmentation is drawn from."""
    return torch.Generator().manual_seed(_seeds(seed, epoch, step)[0])


def model_seed(seed: int, epoch: int, step: int) -> int:
    """Return the seed of what a student itself draws in a step, such as dropout; each process its own."""
    return _seeds(seed, epoch, step)[1] + current_ranks().rank


def _seeds(seed: int, epoch: int, step: int) -> tuple[int, int]:
    first, second = np.random.SeedSequence([seed, epoch, step]).generate_state(2)
    return int(first), int(second)
