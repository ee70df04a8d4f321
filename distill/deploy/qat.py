"""Steps with fake quantisation, so that a student's int8 file answers as the student does.

A copy of the student learns, in the roundings of its int8 file, what the student itself says of the run's
training images, on the run's own stream of batches. Its weights are what onnxruntime then quantises. Batch
norms are as they were; the student, and every other file, stay as they are.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count, cycle, islice
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.runtime.errors import UserError, WrongOption
from cache.runtime.progress import Progress
from distill.config import RunConfig
from distill.data.streams import open_stream
from distill.data.tar_epoch import TarEpoch
from distill.data.tar_stream import StreamedData
from distill.data.training_data import TrainingData
from distill.deploy.fake_quantisation import FakeQuantised
from distill.deploy.info import ModelInfo
from distill.deploy.models import calibration_batches
from distill.deploy.onnx_files import UnitEmbedding, traced
from distill.judge.model import Model
from distill.judge.trained_run import TrainedRun
from distill.settings import with_part
from distill.student.names import family
from distill.student.photo_model import PhotoModel
from distill.train.shared_batches import shared_batches

# How an int8 file is made.
QAT = "qat"
STEPS = 100  # however many images there are
RATE = 1e-4


def check_for_qat(trained: TrainedRun) -> None:
    """Refuse what the epochs are not for: episodes, transformers; UserError."""
    if not isinstance(trained.model, PhotoModel):
        raise WrongOption(
            "--int8 qat is of photos, and this run is of episodes", fix="leave it out: --precisions int8."
        )
    if family(trained.config.student.arch) == "vit":
        raise WrongOption(
            f"--int8 qat is of convolutional students, and {trained.config.student.arch} is a transformer",
            fix="leave it out: --precisions int8.",
        )


@dataclass(frozen=True, kw_only=True)
class TrainingImages:
    """The stream of a trained run's images, as :func:`shared_batches` takes it."""

    model: Model
    data: TrainingData | StreamedData

    @classmethod
    def of(cls, trained: TrainedRun) -> TrainingImages:
        """Open it; UserError where the images are gone, or are not those that the cache has rows of."""
        config = with_part(trained.config, "train", device="cpu")
        config = with_part(config, "data", decoder=trained.decoder or config.data.decoder)
        stream = open_stream(config, cache_dir=trained.cache.path, data_dir=trained.folder.given)
        data = stream.data_of(config, [head.name for head in trained.heads])
        return cls(model=trained.model, data=data)

    @property
    def config(self) -> RunConfig:
        """The run's config."""
        return self.model.config

    def batches_of(self, epoch: int) -> Sequence[NDArray[np.int64]] | TarEpoch:
        """Return an epoch's batches."""
        train, seed = self.config.train, self.config.stream_seed
        return self.data.epoch(epoch, batch_size=train.batch_size, repeats=1, seed=seed)


def fitted_to_int8(
    embedding: UnitEmbedding,
    trained: TrainedRun,
    info: ModelInfo,
    progress: Progress,
) -> UnitEmbedding:
    """Return a copy of an embedding whose weights bear 8 bits; deterministic by the run's seed.

    The images that give the int8 file its ranges give the first ones here. UserError as
    :func:`check_for_qat`, where there are no training images, or torch.export cannot follow the student.
    """
    check_for_qat(trained)
    images = TrainingImages.of(trained)
    fitted = copy.deepcopy(embedding).requires_grad_(True)
    graph: Any = traced(fitted, info.preprocessing).module(check_guards=False)
    quantised = FakeQuantised(graph)
    calibration = [*calibration_batches(trained, info)]
    observe(quantised, calibration)
    before = likeness(quantised, embedding, calibration)
    fit(quantised, images, embedding, progress)
    after = likeness(quantised, embedding, calibration)
    if not after > before:
        progress.note(
            f"int8 stays as it is: fitted, its cosine to the student went from {before:.4f} to {after:.4f}"
        )
        return embedding
    learnt = graph.state_dict()
    fitted.load_state_dict({name: learnt.get(name, own) for name, own in fitted.state_dict().items()})
    return fitted.eval().requires_grad_(False)


@torch.no_grad()
def observe(quantised: FakeQuantised, batches: Iterable[NDArray[np.float32]]) -> None:
    """Set the ranges of a graph from some images."""
    quantised.observing = True
    for batch in batches:
        quantised(torch.from_numpy(batch))
    quantised.observing = False


def fit(
    quantised: FakeQuantised,
    images: TrainingImages,
    student: Callable[[Tensor], Tensor],
    progress: Progress,
) -> None:
    """Train a graph in its roundings, towards what the student says."""
    optimizer = torch.optim.Adam([own for own in quantised.parameters() if own.requires_grad], lr=RATE)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    sizes = [len(batch) for batch in images.batches_of(0)]
    progress.start(sum(islice(cycle(sizes), STEPS)), "fitting to int8", "images")
    quantised.following = True
    with closing(pictures_of(images)) as batches:
        for step, pictures in enumerate(islice(batches, STEPS)):
            with torch.no_grad():
                own = student(pictures)
            loss = apart(quantised(pictures), own)
            if not torch.isfinite(loss):
                raise UserError(
                    f"the loss of --int8 qat is not finite ({loss.item()}) in step {step + 1}",
                    fix="export without --int8 qat.",
                )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            rate.step()
            progress.advance(len(pictures))
    quantised.following = False


def pictures_of(images: TrainingImages) -> Generator[Tensor, None, None]:
    """Yield batches [B, 3, S, S] of one epoch after the other, as the student takes them; without end."""
    for epoch in count():
        for shared in shared_batches(images, epoch, first=0):
            yield shared.of(images.data).image_BXRR


@torch.no_grad()
def likeness(
    quantised: FakeQuantised, student: Callable[[Tensor], Tensor], batches: Sequence[NDArray[np.float32]]
) -> float:
    """Return the mean cosine of what a graph gives in its roundings and what the student says."""
    rows = [torch.from_numpy(batch) for batch in batches]
    return float(torch.cat([(quantised(one) * student(one)).sum(dim=1) for one in rows]).mean())


def apart(rows: Tensor, others: Tensor) -> Tensor:
    """Return the mean of 1 less the cosine of unit rows [B, D]."""
    return 1 - (rows * others).sum(dim=1).mean()
