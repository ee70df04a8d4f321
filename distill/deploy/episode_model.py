"""A shipped model of episodes: cameras -> unit embeddings -> a score for every object, without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cache.sources.episodes import CameraFrame
from distill.deploy.class_sets import ClassSet
from distill.deploy.info import ObjectScores, Preprocessing
from distill.deploy.model import NONE, Prediction, Shipped, labels_of

# Of Keys' kernel: what torch's bicubic interpolation uses.
SHARPNESS = -0.75


@dataclass(frozen=True, kw_only=True)
class Objects:
    """K objects, and the unit rows [2, K, D] of the positive and the negative text of each."""

    positive: ClassSet
    pair: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.positive)


@dataclass(frozen=True, kw_only=True)
class EpisodePrediction(Prediction):
    """The objects of one episode: the best as ``labels``, and the names of those that are ``there``.

    A label's ``score`` is its own, and its ``similarity`` how much nearer, in cosine, its positive text is.
    """

    there: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The objects that are there, or that none is."""
        return "; ".join(self.there) or NONE

    def to_json(self) -> dict[str, Any]:
        """Return a line of results; ``objects`` are those from the threshold on."""
        line = super().to_json()
        return {
            "episode": line.pop("image"),
            **({} if self.error else {"objects": list(self.there)}),
            **{name: value for name, value in line.items() if name != "answer"},
        }


class EpisodeModel(Shipped):
    """An exported folder of a student of episodes, open for use; threads may share it."""

    of_episodes: ClassVar[bool] = True

    @property
    def scoring(self) -> ObjectScores:
        """How its objects are scored."""
        assert self.info.objects is not None
        return self.info.objects

    def objects(self, *, bank: str | None = None, names: Sequence[str] = ()) -> Objects:
        """Return the objects of a bank of positive texts, the model's own unless another is named.

        UserError if there is no such bank, or name in it; the message tells near ones.
        """
        name, negatives = bank or self.info.bank, self.scoring.negatives
        of_positive = {one: classes for one, classes in self.banks.items() if one in negatives}
        positive = self.class_set(bank=name, names=names, banks=of_positive)
        negative = self.banks[negatives[name]]
        places = [negative.classes.index(of_object) for of_object in positive.classes]
        rows = negative.rows(places).embeddings
        return Objects(positive=positive, pair=np.stack([positive.embeddings, rows]))

    def answer(
        self, embeddings: NDArray[np.float32], objects: Objects, *, top: int, threshold: float
    ) -> list[EpisodePrediction]:
        """Return of embeddings [B, L, D] the best ``top`` objects, and those from ``threshold`` on."""
        margins_BK = object_margins(embeddings, objects.pair, self.info.temperature)
        scores_BK = np.clip((1 + np.tanh(margins_BK / 2)) / 2 + np.float32(self.scoring.bias), 0, 1)
        classes, answers = objects.positive, []
        for margins, scores in zip(margins_BK, scores_BK, strict=True):
            # By the margins: scores are clamped, and may be equal.
            order = np.argsort(-margins, kind="stable")
            there = tuple(classes.labels[i] for i in order if scores[i] >= threshold)
            best = order[:top]
            cosines = margins[best].astype(np.float64) * self.info.temperature
            labels = labels_of(classes, best, scores[best], cosines)
            answers.append(EpisodePrediction(labels=labels, none_of_these=not there, there=there))
        return answers


def prepared_frames(frames: Mapping[str, CameraFrame], steps: Preprocessing) -> NDArray[np.float32]:
    """Return an episode's cameras as a student takes them, [C, S, S]: each one's RGB, then its depth."""
    pictures = []
    for frame in frames.values():
        pictures.append(resized((frame.rgb / 255).astype(np.float32), steps.crop))
        if frame.depth is not None:
            pictures.append(resized(frame.depth, steps.crop))
    mean, std = (np.array(values, dtype=np.float32)[:, None, None] for values in (steps.mean, steps.std))
    return (np.concatenate(pictures) - mean) / std


def object_margins(
    embeddings: NDArray[np.float32], pair: NDArray[np.float32], temperature: float
) -> NDArray[np.float32]:
    """Return how much nearer the positive text of every object is than its negative one, in logits [B, K].

    Embeddings [B, L, D] and the ``pair`` of texts [2, K, D] are unit rows; a cosine counts with its softmax
    over the locations.
    """
    logits = np.einsum("bld,pkd->pbkl", embeddings, pair) / np.float32(temperature)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    positive, negative = (weights * logits).sum(axis=-1)
    margins: NDArray[np.float32] = positive - negative
    return margins


def resized(picture: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Return a picture [H, W, C] as [C, side, side]: bicubic and without antialiasing, as torch does it."""
    down, across = (_cubic_weights(length, side) for length in picture.shape[:2])
    return np.einsum("ih,hwc,jw->cij", down, picture, across, optimize=True).astype(np.float32)


def _cubic_weights(source: int, target: int) -> NDArray[np.float32]:
    """Return what every old pixel counts for every new one, [target, source]; the border goes on outside."""
    weights = np.zeros((target, source), dtype=np.float32)
    # As torch computes it, rounding and all: of large pictures the places would differ.
    centres = (np.arange(target, dtype=np.float32) + 0.5) * np.float32(source / target) - np.float32(0.5)
    first = np.floor(centres).astype(int)
    for offset in (-1, 0, 1, 2):
        away = np.abs(centres - first - offset)
        near = ((SHARPNESS + 2) * away - (SHARPNESS + 3)) * away**2 + 1
        far = ((SHARPNESS * away - 5 * SHARPNESS) * away + 8 * SHARPNESS) * away - 4 * SHARPNESS
        np.add.at(
            weights,
            (np.arange(target), np.clip(first + offset, 0, source - 1)),
            np.where(away <= 1, near, far),
        )
    return weights
