"""Labels for images: what ``distill predict`` calls."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import printable
from cache.runtime.progress import Progress, Silent
from cache.sources.decoding import content_of
from distill.deploy.class_sets import ClassSet
from distill.deploy.model import Model, Prediction
from distill.deploy.pictures import Pictures
from distill.deploy.prepared import prepared_batches

P = TypeVar("P", bound=Prediction)


def predict(
    model: Model,
    pictures: Pictures | Sequence[Path],
    classes: ClassSet,
    *,
    top: int = 5,
    reject: bool = False,
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Iterator[Prediction]:
    """Yield the prediction of every picture, in their order; an unreadable one says why and stops no other.

    Pictures of no source are files.
    """
    if not isinstance(pictures, Pictures):
        pictures = Pictures.of(map(str, pictures))
    return predicted(
        ((sample.where, sample) for _, sample in pictures),
        lambda sample: model.prepare_file(content_of(sample.content), sample.key),
        lambda images: model.answer(model.embed(images), classes, top=top, reject=reject),
        of=Prediction,
        total=len(pictures),
        batch_size=batch_size,
        progress=progress,
    )


def predicted(
    sources: Iterable[tuple[str, Any]],
    prepare: Callable[[Any], NDArray[Any]],
    answer: Callable[[NDArray[Any]], Iterable[P]],
    *,
    of: type[P],
    total: int,
    batch_size: int,
    progress: Progress | None,
) -> Iterator[P]:
    """Yield a prediction for each of ``total`` sources, a name and what ``prepare`` takes, in their order.

    ``answer`` takes a stack of prepared images, without what cannot be read.
    """
    progress = progress or Silent()
    progress.start(total)
    for chunk in prepared_batches(sources, lambda source: prepare(source[1]), batch_size=batch_size):
        images = [image for _, image in chunk if not isinstance(image, str)]
        answers = iter(answer(np.stack(images)) if images else ())
        for (name, _), image in chunk:
            if isinstance(image, str):
                yield of(image=name, error=image)
            else:
                yield replace(next(answers), image=name)
        progress.advance(len(chunk))


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
