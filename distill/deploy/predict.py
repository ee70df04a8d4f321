"""Labels for image files: what ``distill predict`` calls."""

from __future__ import annotations

import csv
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError, printable
from cache.runtime.progress import Progress, Silent
from cache.sources.decoding import ENDINGS, UnreadableImage, content_of
from distill.deploy.class_sets import ClassSet
from distill.deploy.model import Model, Prediction

P = TypeVar("P", bound=Prediction)
DECODERS = 4
# Decoded images that wait for the model: with one batch in work the decoders are never idle.
AHEAD = 2


def image_files(paths: Sequence[Path]) -> list[Path]:
    """Return the images that were named: files as they are, folders with all below them, sorted.

    UserError if a folder has no image below it, or a path does not exist.
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
    return predicted(
        [(str(file), file) for file in files],
        lambda file: model.prepare_file(content_of(file.read_bytes), file.name),
        lambda images: model.answer(model.embed(images), classes, top=top, reject=reject),
        of=Prediction,
        batch_size=batch_size,
        progress=progress,
    )


def predicted(
    sources: Sequence[tuple[str, Any]],
    prepare: Callable[[Any], NDArray[Any]],
    answer: Callable[[NDArray[Any]], Iterable[P]],
    *,
    of: type[P],
    batch_size: int,
    progress: Progress | None,
) -> Iterator[P]:
    """Yield a prediction for every source, a name and what ``prepare`` takes, in their order.

    ``answer`` takes a stack of prepared images, without what cannot be read.
    """
    progress = progress or Silent()
    progress.start(len(sources))
    with ThreadPoolExecutor(DECODERS) as pool:
        for chunk in _ahead(pool, sources, prepare, batch_size):
            images = [image for _, image in chunk if not isinstance(image, str)]
            answers = iter(answer(np.stack(images)) if images else ())
            for name, image in chunk:
                if isinstance(image, str):
                    yield of(image=name, error=image)
                else:
                    yield replace(next(answers), image=name)
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
