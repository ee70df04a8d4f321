"""What an exported graph does beside the student it came from: on the test splits, image by image."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from cache.runtime.errors import UserError
from cache.sources.samples import labels_of
from distill.data.augment import eval_transform
from distill.data.normalisation import Normalisation
from distill.data.stream import EvalSplit
from distill.deploy.class_sets import ClassSet
from distill.deploy.info import GRAPH, OUTSIDE, ModelInfo, Preprocessing
from distill.deploy.model import Embed
from distill.judge.calibration import Compared
from distill.judge.evaluate import SplitResult, evaluate
from distill.judge.outputs import spread_sample
from distill.judge.trained_run import TrainedRun
from distill.student.classifier import AllClasses

FLOAT32_DIFFERENCE = 1e-4
# Below that a file's answers are no longer its student's.
ALIKE = 0.98
BATCH = 32
Prepare = Callable[[Image.Image], NDArray[np.float32]]
"""One RGB photo -> what a library's network takes of it, [3, S, S]."""


@dataclass(frozen=True, kw_only=True)
class Written:
    """A file that has just been written; ``embed`` runs it, ``where`` says who prepares its images.

    ``prepare`` is the preprocessing of the library that loads it, where that brings its own; ``more`` is what
    else was measured of it.
    """

    name: str
    path: Path
    embed: Embed
    where: str = OUTSIDE
    prepare: Prepare | None = None
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """The images, or episodes, of one split that a graph is judged on, and what the student says of them.

    ``embeddings`` [N, D] unit rows, ``labels`` [N] index its classes, of those that could be read; ``of`` how
    many the split has, whose ``other_data`` says how it is not what the run was judged on.
    """

    split: EvalSplit
    of: int
    other_data: str
    embeddings: NDArray[np.float32]
    labels: Tensor


def judged_splits(trained: TrainedRun, student: Embed, *, most: int) -> dict[str, Judged]:
    """Return the run's test splits and its id_val with the student's embeddings, ``most`` images of each.

    Where it has neither they are what it set aside of a pool, else of train. The same images every time, as
    many of every class as of any other.
    """
    aside: list[EvalSplit] = []
    with suppress(UserError):  # it set none aside
        aside = trained.wanted(["id_val"])
    splits = {split.name: split for split in (*aside, *tests_or_train(trained))}
    return {name: judged_of(trained, split, student, most=most) for name, split in splits.items()}


def tests_or_train(trained: TrainedRun) -> list[EvalSplit]:
    """Return the run's test splits, else what it set aside, else train: files are compared on something.

    UserError if the run is of a pool alone, and set none of it aside.
    """
    tests = trained.wanted(())
    if not tests and "train" not in trained.folder.splits:
        raise UserError(
            "the run has no labelled image, and an export is compared with its student on some",
            fix="add test images to the data, run cache-features again, and train again; or train again with "
            "--set data.pool_val=0.1, of which the teacher says what they are.",
        )
    return tests or trained.wanted(["train"])


def judged_of(trained: TrainedRun, split: EvalSplit, student: Embed, *, most: int) -> Judged:
    """Return ``most`` images or episodes of a split with the student's embeddings; UserError without any."""
    some = sampled(split.pixels.samples, most)
    part = replace(split, pixels=trained.pixels(some, split.name))
    plain = trained.model.augment.plain
    trained.progress.start(len(some), f"the student on {split.name}", trained.model.unit)
    embeddings = []
    for pictures in decoded(part):
        embeddings.append(student(plain(pictures).numpy()))
        trained.progress.advance(len(pictures))
    if not embeddings:
        raise UserError(f"no {trained.model.unit} of {split.name} could be read", fix="check its files.")
    return Judged(
        split=part,
        of=len(split.pixels.samples),
        other_data=trained.other_data(split.name),
        embeddings=np.concatenate(embeddings),
        labels=torch.from_numpy(
            labels_of(readable(part), part.class_names, multi_label=trained.cache.holds_episodes)
        ),
    )


def readable(split: EvalSplit) -> list[Any]:
    """Return the images or episodes of a split that could be read, in their order, once all were tried."""
    return [sample for sample in split.pixels.samples if sample.key not in split.pixels.unreadable]


def sampled(samples: Sequence[Any], most: int) -> list[Any]:
    """Return ``most`` images or episodes, as many of every label as of any other, in their order."""
    keys, labels = [sample.key for sample in samples], [str(sample.labels) for sample in samples]
    return [samples[i] for i in sorted(spread_sample(keys, labels, most=most))]


def embedded(split: EvalSplit, steps: Preprocessing, embed: Embed, *, where: str) -> NDArray[np.float32]:
    """Return what a graph says of a split's images, [N, D]."""
    return np.concatenate([embed(images) for images in prepared(split, steps, where=where)])


def prepared(split: EvalSplit, steps: Preprocessing, *, where: str = OUTSIDE) -> Iterator[NDArray[Any]]:
    """Yield a split's images as a graph takes them.

    Float32 [B, 3, S, S], or where the graph prepares them uint8 [B, R, R, 3], squashed.
    """
    by = Normalisation.of(steps.mean, steps.std, where="the model")
    for images in decoded(split):
        inside = where == GRAPH
        yield (images.permute(0, 2, 3, 1) if inside else eval_transform(images, steps.crop, by)).numpy()


def decoded(split: EvalSplit) -> Iterator[Tensor]:
    """Yield a split's images as its pixels hold them, a batch at a time; what cannot be read is left out."""
    order = np.arange(len(split.pixels.samples))
    batches = [order[start : start + BATCH] for start in range(0, len(order), BATCH)]
    yield from (images for indices, images in split.pixels.batches(batches) if len(indices))


@dataclass(frozen=True, kw_only=True)
class Choices:
    """All that ``predict`` chooses from unless it is told otherwise, ID classes first.

    ``texts`` [C, D] are unit rows in the order of ``among.names``.
    """

    among: AllClasses
    texts: NDArray[np.float32]
    temperature: float

    @classmethod
    def of(cls, classes: ClassSet, id_classes: Sequence[str], temperature: float) -> Choices:
        """Take a class set, free texts too; UserError where an ID class is not in it."""
        names = [name or f"text {i}" for i, name in enumerate(classes.classes)]
        first = places_of(classes, id_classes)
        rest = [i for i in range(len(names)) if i not in set(first)]
        among = AllClasses(id_classes=tuple(id_classes), ood_classes=tuple(names[i] for i in rest))
        return cls(among=among, texts=classes.embeddings[[*first, *rest]], temperature=temperature)

    def judge(
        self, judged: Mapping[str, Judged], rows: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, SplitResult]:
        """Judge unit embeddings [N, D] of every split, among its own classes and among all."""
        return {
            name: evaluate(
                [(torch.from_numpy(rows[name]), part.labels)],
                self._logits,
                split=name,
                class_names=part.split.class_names,
                among=self.among,
            )
            for name, part in judged.items()
        }

    def compared(
        self, judged: Mapping[str, Judged], rows: Mapping[str, NDArray[np.float32]]
    ) -> dict[str, Compared]:
        """Return unit embeddings [N, D] of every split beside all classes."""
        columns = {name: self.among.columns(part.split.class_names) for name, part in judged.items()}
        return {
            name: Compared(
                similarities=rows[name] @ self.texts.T,
                labels=np.array(columns[name])[part.labels.numpy()],
                own=tuple(columns[name]),
            )
            for name, part in judged.items()
        }

    def _logits(self, outputs: Tensor) -> Tensor:
        # As the shipped model does it, to the last digit.
        return torch.from_numpy(outputs.numpy() @ self.texts.T / self.temperature)


def compared(
    judged: Judged, embeddings: NDArray[np.float32], result: SplitResult, student: SplitResult
) -> dict[str, Any]:
    """Return how well embeddings [N, D] do, and how far they and what they do are from the student's.

    Names are those of a run's metrics (:meth:`SplitResult.metrics`); the difference is of the accuracy among
    the split's own classes, of one class among all; ``of`` is how many images the split has;
    ``other_data`` is there where it is not what the run was judged on.
    """
    theirs = student.metrics()
    return {
        "images": len(embeddings),
        "of": judged.of,
        "classes": len(judged.split.class_names),
        **result.metrics(),
        "student_accuracy": theirs["accuracy"],
        "student_all_accuracy": theirs["all_accuracy"],
        "accuracy_difference": result.headline - student.headline,
        **distances(judged, embeddings),
    }


def distances(judged: Judged, embeddings: NDArray[np.float32]) -> dict[str, float | str]:
    """Return how far unit embeddings are from the student's, and what other data they are of."""
    cosines = (judged.embeddings * embeddings).sum(axis=-1)
    return {
        "cosine_mean": float(cosines.mean()),
        "cosine_least": float(cosines.min()),
        "largest_difference": float(np.abs(judged.embeddings - embeddings).max()),
        **({"other_data": judged.other_data} if judged.other_data else {}),
    }


def check_float32(name: str, splits: Mapping[str, dict[str, Any]]) -> None:
    """Refuse a float32 model that does not say what its student says.

    UserError if an embedding differs by more than 1e-4 in any place.
    """
    for split, numbers in splits.items():
        # Not "greater than": what is not a number must not pass.
        if not numbers["largest_difference"] <= FLOAT32_DIFFERENCE:
            raise UserError(
                f"{name} differs from the student by {numbers['largest_difference']:.2g} on {split} "
                f"(at most {FLOAT32_DIFFERENCE:g} is allowed)",
                fix="this student cannot be exported so; please report it with its --arch.",
            )


def unlike(measured_of: Mapping[str, dict[str, Any]]) -> dict[str, float]:
    """Return the least mean cosine to the student over the splits, by the name of every file below 0.98."""
    least = {
        name: min(numbers["cosine_mean"] for numbers in measured["splits"].values())
        for name, measured in measured_of.items()
    }
    # Not "less than": what is not a number is not alike.
    return {name: cosine for name, cosine in least.items() if not cosine >= ALIKE}


def with_compared(
    info: ModelInfo, file: Written, splits: dict[str, dict[str, Any]], classes: int, **more: Any
) -> ModelInfo:
    """Return ``info`` with what a file does on ``splits``; UserError where one must do more than it does."""
    if file.name not in ("float16", "int8"):
        check_float32(file.path.name, splits)
    measured = {"bytes": file.path.stat().st_size, "splits": splits, "classes": classes, **more, **file.more}
    return replace(info, measured={**info.measured, file.name: measured})


def places_of(classes: ClassSet, class_names: Sequence[str]) -> list[int]:
    """Return where some class folders are in a class set; UserError where one has no text."""
    place = {name: i for i, name in enumerate(classes.classes)}
    missing = [name for name in class_names if name not in place]
    if missing:
        raise UserError(
            f"the text bank has no text for the class {missing[0]!r}",
            fix="choose another --text when training.",
        )
    return [place[name] for name in class_names]
