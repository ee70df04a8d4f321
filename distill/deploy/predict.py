"""Labels for image files: what ``distill predict`` calls."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError, printable
from cache.runtime.progress import Progress, Silent
from cache.sources.image_folder import ENDINGS, UnreadableImage, load_rgb
from distill.deploy.class_sets import ClassSet
from distill.deploy.model import NONE, Model

DECODERS = 4
# Decoded images that wait for the model: with one batch in work the decoders are never idle.
AHEAD = 2


@dataclass(frozen=True, kw_only=True)
class Label:
    """One of the labels of an image.

    ``score`` is its probability among the class set, ``similarity`` its cosine; ``class_name`` the class
    folder, where it has one.
    """

    label: str
    class_name: str
    score: float
    similarity: float


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The labels of one image, best first, or why it could not be read.

    ``none_of_these``: even the best is too far away.
    """

    image: str
    labels: tuple[Label, ...] = ()
    none_of_these: bool = False
    error: str = ""

    @property
    def answer(self) -> str:
        """The one label, or that it is none."""
        return NONE if self.none_of_these else self.labels[0].label

    def to_json(self) -> dict[str, Any]:
        """Return a line of results."""
        if self.error:
            return {"image": self.image, "error": self.error}
        return {
            "image": self.image,
            "answer": self.answer,
            "labels": [asdict(label) for label in self.labels],
        }


P = TypeVar("P", bound=Prediction)


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


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the images that were named: files as they are, folders with all below them, sorted.

    Raises
    ------
    UserError
        If a folder has no image below it, or a path does not exist.
    """
    files: list[Path] = []
    for path in paths:
        if not path.is_dir():
            if not path.exists():
                raise UserError(f"{path} does not exist", fix="check the path.")
            files.append(path)
            continue
        below = sorted(
            file
            for file in path.rglob("*")
            if file.suffix.lower() in ENDINGS and not file.name.startswith(".") and file.is_file()
        )
        if not below:
            raise UserError(
                f"{path} has no images below it", fix=f"give files that end in {', '.join(sorted(ENDINGS))}."
            )
        files += below
    return list(dict.fromkeys(files))


def predict(
    model: Model,
    files: Sequence[Path],
    classes: ClassSet,
    *,
    top: int = 5,
    reject: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """Yield the prediction of every file, in their order; an unreadable one says why and stops no other."""
    if reject:
        model.rejection()

    def labelled(embeddings: NDArray[np.float32]) -> Iterator[dict[str, Any]]:
        answers = model.answer(embeddings, classes, top=top, reject=reject)
        columns = zip(answers.places, answers.scores, answers.similarities, answers.none, strict=True)
        for places, scores, similarities, none in columns:
            labels = labels_of(classes, places, scores, similarities)
            yield {"labels": labels, "none_of_these": bool(none)}

    return predicted(
        [(str(file), file) for file in files],
        lambda file: model.prepare(load_rgb(file)),
        model.embed,
        labelled,
        of=Prediction,
        batch_size=batch_size,
        progress=progress,
    )


def predicted(
    sources: Sequence[tuple[str, Any]],
    prepare: Callable[[Any], NDArray[Any]],
    embed: Callable[[NDArray[Any]], NDArray[np.float32]],
    labelled: Callable[[NDArray[np.float32]], Iterable[dict[str, Any]]],
    *,
    of: type[P],
    batch_size: int,
    progress: Progress | None,
) -> Iterator[P]:
    """Yield a prediction for every source, a name and what ``prepare`` takes, in their order.

    ``labelled`` gives of the embeddings of a batch, without what cannot be read, each one's fields of ``of``.
    """
    progress = progress or Silent()
    progress.start(len(sources))
    with ThreadPoolExecutor(DECODERS) as pool:
        for chunk in _ahead(pool, sources, prepare, batch_size):
            images = [image for _, image in chunk if not isinstance(image, str)]
            answers = iter(labelled(embed(np.stack(images))) if images else ())
            for name, image in chunk:
                yield of(image=name, **({"error": image} if isinstance(image, str) else next(answers)))
            progress.advance(len(chunk))


def _ahead(
    pool: ThreadPoolExecutor,
    sources: Sequence[tuple[str, Any]],
    prepare: Callable[[Any], NDArray[Any]],
    batch_size: int,
) -> Iterator[list[tuple[str, NDArray[Any] | str]]]:
    """Yield batches of (name, prepared image or the reason why not), decoding the next ones meanwhile."""

    def prepared(source: Any) -> NDArray[Any] | str:
        try:
            return prepare(source)
        except UnreadableImage as error:
            return str(error)

    waiting: deque[list[tuple[str, Future[NDArray[Any] | str]]]] = deque()
    for start in range(0, len(sources), batch_size):
        chunk = sources[start : start + batch_size]
        waiting.append([(name, pool.submit(prepared, source)) for name, source in chunk])
        if len(waiting) == AHEAD:
            yield [(name, future.result()) for name, future in waiting.popleft()]
    for last in waiting:
        yield [(name, future.result()) for name, future in last]


def labels_of(classes: ClassSet, places: Any, scores: Any, similarities: Any) -> tuple[Label, ...]:
    """Return the labels of one image by their places in the class set."""
    return tuple(
        Label(
            label=classes.labels[i],
            class_name=classes.classes[i],
            score=float(score),
            similarity=float(similarity),
        )
        for i, score, similarity in zip(places, scores, similarities, strict=True)
    )


def write_jsonl(file: TextIO, predictions: Iterable[Prediction]) -> Iterator[Prediction]:
    """Write a JSON line for each prediction as it comes, and pass it on."""
    for one in predictions:
        file.write(json.dumps(one.to_json()) + "\n")
        yield one


def write_csv(
    file: TextIO, predictions: Iterable[Prediction], *, top: int, of: str = "image"
) -> Iterator[Prediction]:
    """Write a line of a table for each prediction as it comes, and pass it on; ``of`` heads what it is of."""
    writer = csv.writer(file, lineterminator="\n")
    places = [f"{what}_{i}" for i in range(1, top + 1) for what in ("label", "score")]
    writer.writerow([of, "answer", *places, "error"])
    for one in predictions:
        cells = [cell for label in one.labels for cell in (label.label, f"{label.score:.6f}")]
        cells += [""] * (2 * top - len(cells))
        writer.writerow([printable(one.image), "" if one.error else one.answer, *cells, one.error])
        yield one
