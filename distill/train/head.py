"""What a head is made of, features of a frozen trunk and the teacher's rows, and the head by ridge."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cache.runtime.errors import UserError
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import labels_of
from cache.sources.splits import POOL
from distill.data.id_val import shares_of
from distill.data.pixel_sources import PixelMaker
from distill.data.training_data import TrainingData
from distill.judge.evaluate import metrics_of
from distill.judge.model import judged
from distill.student.closed_form import LAMBDAS, LinearHead, Rows, best_of, fit, mean_cosine, moments_of
from distill.student.photo_model import PhotoModel
from distill.student.trunk_features import head_outputs, set_linear, standard_of
from distill.train.feature_files import FeatureFiles, Features
from distill.train.session import Session

# Splits of the training classes, or of some set aside, that lambda is chosen on.
CHOSEN_ON = ("class_val", "id_val")
# Of the training images without such a split, on which the cosine is looked at.
HELD_OUT = 0.1


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """What a head is made from: the features of training images and of the pool, of every judged split too.

    ``pool_row_of`` are the numbers of the pool's images among the rows of every teacher.
    """

    model: PhotoModel
    data: TrainingData
    train: Features
    pool: Features | None
    pool_row_of: NDArray[np.int64]
    splits: dict[str, Features]

    @classmethod
    def of(cls, session: Session, files: FeatureFiles) -> HeadData:
        """Find or make them; UserError where there can be none."""
        model, data = photos_of(session)
        aside = [name for name in (*CHOSEN_ON,) if name in session.splits]
        of_train = [data.pixels, *(session.splits[name].pixels for name in aside)]
        train, *set_aside = files.of("train", of_train)
        splits = dict(zip(aside, set_aside, strict=True))
        for name, split in session.splits.items():
            if name not in splits:
                (splits[name],) = files.of(name, [split.pixels])
        pool, row_of = _pool_of(model, files)
        return cls(model=model, data=data, train=train, pool=pool, pool_row_of=row_of, splits=splits)

    @property
    def rows(self) -> Rows:
        """Features as they are, and unit rows of all teachers, of training images, then of the pool."""
        readable = [self.train.readable, self.pool.readable if self.pool else np.zeros(0, dtype=bool)]
        at = np.flatnonzero(np.concatenate(readable))
        return Rows(at=at, read=self._read, features=self.train.width)

    def _read(self, at: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        count = len(self.train)
        mine, pooled = at[at < count], at[at >= count] - count
        features, targets = [self.train.of(mine)], [self._targets(mine)]
        if len(pooled) and self.pool is not None:
            features.append(self.pool.of(pooled))
            row = self.pool_row_of[pooled]
            targets.append(_unit([head.cache.split(POOL).embeddings[row] for head in self.model.heads]))
        return torch.cat(features), torch.cat(targets)

    def _targets(self, images: NDArray[np.int64]) -> Tensor:
        return _unit([rows.embeddings[rows.row_of[images]] for rows in self.data.teachers])

    def held_out(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which of some rows are held out, by the hash of their key."""
        count = len(self.train)
        samples = self.data.joined.images
        hashes = hashes_of(samples[i].key for i in at[at < count].tolist())
        aside = np.zeros(len(at), dtype=bool)
        aside[: len(hashes)] = shares_of(hashes) < HELD_OUT
        return aside


def _unit(of_teachers: Sequence[NDArray[Any]]) -> Tensor:
    return torch.cat([F.normalize(torch.from_numpy(rows).float(), dim=1) for rows in of_teachers], dim=1)


def photos_of(session: Session) -> tuple[PhotoModel, TrainingData]:
    """Return a session's parts where its features can be a column; UserError else."""
    model, data = session.model, session.data
    if not isinstance(model, PhotoModel) or not isinstance(data, TrainingData):
        raise UserError(
            "a head on the features of a frozen trunk is for photos that are no stream of tars",
            fix="set train.head_only=off and student.head_start=random, or convert the cache: "
            "distill cache convert --to hdf5.",
        )
    return model, data


def _pool_of(model: PhotoModel, files: FeatureFiles) -> tuple[Features | None, NDArray[np.int64]]:
    """Return the features of the pool's images that have a row of every teacher, and which row."""
    nothing = np.empty(0, dtype=np.int64)
    source = model.folder.splits.get(POOL)
    if source is None or POOL not in model.cache.split_names or not _uses_pool(model):
        return None, nothing
    samples = source.all()
    row_of = model.cache.split(POOL).find([sample.key for sample in samples])
    samples = tuple(samples[i] for i in np.flatnonzero(row_of >= 0).tolist())
    if not samples:
        return None, nothing
    make = PixelMaker(config=model.config.data, cache=model.cache, decode=model.augment.decode)
    make.budget = 0  # each is looked at once
    (features,) = files.of(POOL, [make(samples, (POOL,))])
    return features, row_of[row_of >= 0]


def _uses_pool(model: PhotoModel) -> bool:
    return bool(getattr(model.config.data, "pool_share", -1))


def standardise(data: HeadData) -> Rows:
    """Fit a student's standardisation, where it has one; return the rows as its head takes them."""
    rows, standard = data.rows, standard_of(data.model.student)
    if standard is None:
        return rows
    moments = moments_of(rows)
    standard.fit(moments.mean, moments.deviation)
    mean, scale = standard.mean.double().cpu(), standard.scale.double().cpu()

    def read(at: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        features, targets = rows.read(at)
        return (features.double() - mean) / scale, targets

    return Rows(at=rows.at, read=read, features=rows.features)


def by_ridge(data: HeadData, rows: Rows, session: Session) -> dict[str, Any]:
    """Put the closed form's head into a student; return what is told of it, its lambda for one."""
    began, ridge = time.perf_counter(), data.model.config.student.ridge
    scores: dict[float, float] = {}
    chosen_by = "given"
    whole = fit(rows)
    head = whole.head(ridge) if ridge else None
    if head is None:
        split = next((name for name in CHOSEN_ON if name in data.splits), None)
        if split is not None:
            chosen_by = f"accuracy on {split}"
            ridge, head, scores = best_of(whole, lambda head: _accuracy(head, data, session, split))
        else:
            chosen_by = "cosine on a held-out tenth"
            aside = data.held_out(rows.at)
            if not aside.any() or aside.all():
                aside = np.arange(len(rows)) % 10 == 0
            part, others = fit(rows.where(~aside)), rows.where(aside)
            ridge, _, scores = best_of(part, lambda head: mean_cosine(head, others))
            head = whole.head(ridge)
    _put(head, data)
    return {
        "lambda": ridge,
        "chosen_by": chosen_by,
        "scores": {f"{one:g}": score for one, score in scores.items()},
        "lambdas": list(LAMBDAS),
        "features": rows.features,
        "images": {"train": int(data.train.readable.sum()), POOL: len(rows) - int(data.train.readable.sum())},
        "seconds": time.perf_counter() - began,
    }


def _put(head: LinearHead, data: HeadData) -> None:
    set_linear(data.model.student, head.weight, head.bias)


def _accuracy(head: LinearHead, data: HeadData, session: Session, split: str) -> float:
    _put(head, data)
    outputs = outputs_of_split(data, session, split)
    results = judged(data.model, [outputs], session.splits[split])
    metrics = metrics_of(results)
    return metrics[f"{split}_accuracy"]


@torch.no_grad()
def outputs_of_split(data: HeadData, session: Session, name: str) -> tuple[Tensor, Tensor]:
    """Return a student's outputs [N, D] and labels [N] of a split's readable images, from features."""
    split, features, model = session.splits[name], data.splits[name], data.model
    at = np.flatnonzero(features.readable)
    labels = labels_of(split.pixels.samples, split.class_names)
    training = model.student.training
    model.student.eval()
    size = 4096
    try:
        rows = [
            head_outputs(model.student, features.of(at[start : start + size]).to(model.device)).cpu()
            for start in range(0, len(at), size)
        ]
    finally:
        model.student.train(training)
    return torch.cat(rows), torch.from_numpy(labels[at])
