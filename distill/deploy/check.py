"""What an exported graph does beside the student it came from: on the test splits, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.errors import UserError
from cache.images import ImageRecord
from distill.augment import eval_transform
from distill.deploy.class_sets import ClassSet
from distill.deploy.info import GRAPH, OUTSIDE
from distill.evaluate_run import TrainedRun
from distill.metrics import macro_accuracy
from distill.outputs import spread_sample
from distill.stream import EvalSplit

FLOAT32_DIFFERENCE = 1e-4
# Below that a file's answers are no longer its student's.
ALIKE = 0.98
# Of ID images that the threshold takes for one of the classes.
ACCEPTED = 0.95
BATCH = 32

Embed = Callable[[NDArray[Any]], NDArray[np.float32]]
"""Prepared images, see :func:`prepared` -> unit embeddings [B, D]."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The images of one split that a graph is judged on, and what the student says of them.

    ``embeddings`` [N, D] unit rows, ``labels`` [N] index ``class_names``.
    """

    split: EvalSplit
    embeddings: NDArray[np.float32]
    labels: NDArray[np.int64]

    @property
    def class_names(self) -> tuple[str, ...]:
        """The split's classes."""
        return self.split.class_names


def judged_splits(trained: TrainedRun, student: Embed, *, most: int) -> dict[str, Judged]:
    """Return the run's test splits with the student's embeddings, at most ``most`` images of each.

    The same images every time, as many of every class as of any other.
    """
    found = {}
    for split in trained.wanted(()):
        records: list[ImageRecord] = list(split.pixels.records)  # type: ignore[arg-type]
        classes = [split.class_names[record.label] for record in records]
        drawn = spread_sample([record.key for record in records], classes, most=most)
        some = [records[i] for i in sorted(drawn)]
        part = EvalSplit(
            name=split.name, pixels=trained.pixels(some, split.name), class_names=split.class_names
        )
        embeddings = embedded(part, trained.config.student.image_size, student)
        if not len(embeddings):
            raise UserError(f"no image of {split.name} could be read", fix="check that the files are images.")
        unreadable = part.pixels.unreadable
        labels = np.array([record.label for record in some if record.key not in unreadable], dtype=np.int64)
        found[split.name] = Judged(split=part, embeddings=embeddings, labels=labels)
    return found


def embedded(split: EvalSplit, image_size: int, embed: Embed, *, where: str = OUTSIDE) -> NDArray[np.float32]:
    """Return what a graph says of a split's images, [N, D]."""
    rows = [embed(images) for images in prepared(split, image_size, where=where)]
    return np.concatenate(rows) if rows else np.zeros((0, 0), dtype=np.float32)


def prepared(split: EvalSplit, image_size: int, *, where: str = OUTSIDE) -> Iterator[NDArray[Any]]:
    """Yield a split's images as a graph takes them.

    Float32 [B, 3, S, S], or where the graph prepares them uint8 [B, R, R, 3], squashed.
    """
    order = np.arange(len(split.pixels.records))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    for indices, images in split.pixels.batches(batches):
        if len(indices):
            inside = where == GRAPH
            yield (images.permute(0, 2, 3, 1) if inside else eval_transform(images, image_size)).numpy()


def compared(judged: Judged, embeddings: NDArray[np.float32], texts: NDArray[np.float32]) -> dict[str, Any]:
    """Return how far embeddings [N, D] are from the student's, and both macro accuracies in percent.

    ``texts`` [C, D] are unit rows of the split's classes.
    """
    cosines = (judged.embeddings * embeddings).sum(axis=1)
    labels = torch.from_numpy(judged.labels)
    accuracy = [
        macro_accuracy(torch.from_numpy(rows @ texts.T), labels) for rows in (judged.embeddings, embeddings)
    ]
    return {
        "images": len(embeddings),
        "classes": len(judged.class_names),
        "student_accuracy": accuracy[0],
        "accuracy": accuracy[1],
        "accuracy_difference": accuracy[1] - accuracy[0],
        "cosine_mean": float(cosines.mean()),
        "cosine_least": float(cosines.min()),
        "largest_difference": float(np.abs(judged.embeddings - embeddings).max()),
    }


def check_float32(name: str, found: Mapping[str, dict[str, Any]]) -> None:
    """Refuse a float32 model that does not say what its student says.

    Raises
    ------
    UserError
        If an embedding differs by more than 1e-4 in any place.
    """
    for split, numbers in found.items():
        # Not "greater than": what is not a number must not pass.
        if not numbers["largest_difference"] <= FLOAT32_DIFFERENCE:
            raise UserError(
                f"{name} differs from the student by {numbers['largest_difference']:.2g} on {split} "
                f"(at most {FLOAT32_DIFFERENCE:g} is allowed)",
                fix="this student cannot be exported so; please report it with its --arch.",
            )


def unlike(found: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Return the least mean cosine to the student over the splits, by the name of every file below 0.98."""
    least = {
        name: min(numbers["cosine_mean"] for numbers in measured["splits"].values())
        for name, measured in found.items()
    }
    # Not "less than": what is not a number is not alike.
    return {name: cosine for name, cosine in least.items() if not cosine >= ALIKE}


def threshold(embeddings: NDArray[np.float32], texts: NDArray[np.float32]) -> float:
    """Return the cosine that 95% of ID images [N, D] reach with the nearest of the ID class texts [C, D]."""
    return float(np.quantile((embeddings @ texts.T).max(axis=1), 1 - ACCEPTED))


def rejected(embeddings: NDArray[np.float32], texts: NDArray[np.float32], least: float) -> float:
    """Return the share of images in percent whose nearest text is farther than ``least``."""
    return 100 * float(((embeddings @ texts.T).max(axis=1) < least).mean())


def texts_of(classes: ClassSet, class_names: Sequence[str]) -> NDArray[np.float32]:
    """Return the unit rows of some class folders, [C, D]; UserError where one has no text."""
    place = {name: i for i, name in enumerate(classes.classes)}
    missing = [name for name in class_names if name not in place]
    if missing:
        raise UserError(
            f"the text bank has no text for the class {missing[0]!r}",
            fix="choose another --text when training.",
        )
    return classes.embeddings[[place[name] for name in class_names]]
