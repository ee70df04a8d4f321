"""What a head is made of, features of a frozen trunk and the teacher's rows, and the head by ridge."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import cached_property
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
from distill.student.closed_form import (
    LAMBDAS,
    LinearHead,
    Ridge,
    Rows,
    best_of,
    fit,
    mean_cosine,
    moments_of,
)
from distill.student.photo_model import PhotoModel
from distill.student.trunk_features import head_outputs, set_linear, standard_of
from distill.train.feature_files import FeatureFiles, Features
from distill.train.session import Session

# Splits of the training classes, or of some set aside, that lambda is chosen on.
CHOSEN_ON = ("class_val", "id_val")
TRAIN = "train"
# Of the training images without such a split, on which the cosine is looked at.
HELD_OUT = 0.1
# Of one row none differs from another.
LEAST = 2


@dataclass(frozen=True, kw_only=True)
class LearntFeatures:
    """The features of all images that a run learns from, in their order."""

    parts: tuple[Features, ...]

    @cached_property
    def readable(self) -> NDArray[np.bool_]:
        """Which could be read."""
        return np.concatenate([part.readable for part in self.parts])

    @property
    def width(self) -> int:
        """F, how many numbers an image has."""
        return self.parts[0].width

    def of(self, images: NDArray[np.int64]) -> Tensor:
        """Return the features of some images, [B, F] float32."""
        rows = torch.empty(len(images), self.width)
        first = 0
        for part in self.parts:
            mine = np.flatnonzero((images >= first) & (images < first + len(part)))
            if len(mine):
                rows[torch.from_numpy(mine)] = part.of(images[mine] - first)
            first += len(part)
        return rows


@dataclass(frozen=True, kw_only=True)
class HeadData:
    """What a head is made from: the features of all images that are learnt from, and of each judged split."""

    model: PhotoModel
    data: TrainingData
    train: LearntFeatures
    splits: dict[str, Features]

    @classmethod
    def of(cls, session: Session, files: FeatureFiles) -> HeadData:
        """Find or make them; UserError where there can be none."""
        model, data = photos_of(session)
        settings = replace(model.config.data, memory_mb=0)  # each is looked at once
        make = PixelMaker(config=settings, cache=model.cache, decode=model.augment.eval_decode)
        # With those set aside of them: how many these are changes no image's features.
        beside = {TRAIN: [*CHOSEN_ON], POOL: ["pool_val"]}
        learnt: list[Features] = []
        splits: dict[str, Features] = {}
        for split, samples in data.joined.taken:
            aside = [name for name in beside.pop(split, ()) if name in session.splits]
            pixels = [make([(split, samples)]), *(session.splits[name].pixels for name in aside)]
            own, *others = files.of(split, pixels)
            learnt.append(own)
            splits |= dict(zip(aside, others, strict=True))
        for name, one in session.splits.items():
            if name not in splits:
                (splits[name],) = files.of(name, [one.pixels])
        return cls(model=model, data=data, train=LearntFeatures(parts=tuple(learnt)), splits=splits)

    @property
    def rows(self) -> Rows:
        """Features as they are, and all teachers' rows in the student's space, of the images learnt from."""
        return Rows(at=np.flatnonzero(self.train.readable), read=self._read, features=self.train.width)

    def _read(self, at: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        return self.train.of(at), torch.cat(
            [
                head.in_its_space(F.normalize(teacher.rows_of(at), dim=1).to(self.model.device)).cpu()
                for head, teacher in zip(self.model.heads, self.data.teachers, strict=True)
            ],
            dim=1,
        )

    def held_out(self, at: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Say which of some rows are held out, by the hash of their key."""
        samples = self.data.joined.images
        aside: NDArray[np.bool_] = shares_of(hashes_of(samples[i].key for i in at.tolist())) < HELD_OUT
        return aside


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


def standardise(data: HeadData) -> Rows:
    """Fit a student's standardisation, where it has one; return the rows as its head takes them."""
    rows, standard = data.rows, standard_of(data.model.student)
    if standard is None:
        return rows
    moments = moments_of(rows)
    standard.fit(moments.mean, moments.deviation)
    mean, scale = standard.mean.cpu().double(), standard.scale.cpu().double()

    def read(at: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        features, targets = rows.read(at)
        return (features.double() - mean) / scale, targets

    return Rows(at=rows.at, read=read, features=rows.features)


def by_ridge(data: HeadData, rows: Rows, session: Session) -> dict[str, Any]:
    """Put the closed form's head into a student; return what is told of it, its lambda for one."""
    began, ridge = time.perf_counter(), data.model.config.student.ridge
    scores: dict[float, float] = {}
    chosen_by = "given"
    whole = _fitted(rows)
    head = whole.head(ridge) if ridge else None
    if head is None:
        split = next((name for name in CHOSEN_ON if name in data.splits), None)
        if split is not None:
            chosen_by = f"{data.model.chosen_by.removeprefix('id_val_')} on {split}"
            ridge, head, scores = best_of(whole, lambda head: _score(head, data, session, split))
        else:
            chosen_by = "cosine on a held-out tenth"
            aside = data.held_out(rows.at)
            if not aside.any() or (~aside).sum() < LEAST:
                aside = np.arange(len(rows)) % 10 == 0
            if (~aside).sum() < LEAST:
                raise UserError(
                    f"{len(rows)} training images are too few to hold some out and choose lambda",
                    fix="add training images, or give it: student.ridge=1.",
                )
            part, others = _fitted(rows.where(~aside)), rows.where(aside)
            ridge, _, scores = best_of(part, lambda head: mean_cosine(head, others))
            head = whole.head(ridge)
    _put(head, data)
    labelled = int((data.data.labels[rows.at] >= 0).sum())
    return {
        "lambda": ridge,
        "chosen_by": chosen_by,
        "scores": {f"{one:g}": score for one, score in scores.items()},
        "lambdas": list(LAMBDAS),
        "features": rows.features,
        "images": {TRAIN: labelled, POOL: len(rows) - labelled},
        "seconds": time.perf_counter() - began,
    }


def _fitted(rows: Rows) -> Ridge:
    try:
        return fit(rows)
    except ValueError as error:
        raise UserError(
            f"no head can be made by ridge from {len(rows)} training images: {error}",
            fix="add training images, or begin otherwise: student.head_start=random, train.head_only=off.",
        ) from error


def _put(head: LinearHead, data: HeadData) -> None:
    set_linear(data.model.student, head.weight, head.bias)


def _score(head: LinearHead, data: HeadData, session: Session, split: str) -> float:
    _put(head, data)
    outputs = outputs_of_split(data, session, split)
    results = judged(data.model, [outputs], session.splits[split])
    metrics = metrics_of(results)
    return metrics[data.model.chosen_by.replace("id_val", split)]


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
