"""What a file does as the library that loads it prepares photos: on the test images' files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.sources.decoding import UnreadableImage
from distill.deploy.check import BATCH, Choices, Judged, Prepare, Written, readable

# Of each split, to choose between preprocessings by.
PROBED = 32


def nearness(file: Written, judged: Mapping[str, Judged]) -> float:
    """Return the mean cosine of some images of every split, prepared by ``file``'s library, to the student's.

    1 where no image can be read.
    """
    cosines = [
        (rows * part.embeddings[places]).sum(axis=1)
        for part in judged.values()
        for places, rows in [_rows(file, part, most=PROBED)]
    ]
    return float(np.concatenate(cosines).mean()) if any(map(len, cosines)) else 1.0


def as_loaded(file: Written, judged: Mapping[str, Judged], choices: Choices) -> dict[str, dict[str, Any]]:
    """Return what a file does with its library's preprocessing, by split; a split without images is left out.

    ``cosine_mean`` and ``cosine_least`` are to the student's embeddings with its own preprocessing.
    """
    splits: dict[str, dict[str, Any]] = {}
    for split, part in judged.items():
        places, rows = _rows(file, part)
        if not len(places):
            continue
        some = replace(part, labels=part.labels[places], embeddings=part.embeddings[places])
        result = choices.judge({split: some}, {split: rows})[split]
        cosines = (rows * some.embeddings).sum(axis=1)
        splits[split] = {
            "images": len(places),
            **{name: value for name, value in result.metrics().items() if name.endswith("accuracy")},
            "cosine_mean": float(cosines.mean()),
            "cosine_least": float(cosines.min()),
        }
    return splits


def _rows(
    file: Written, part: Judged, *, most: int | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return which of a split's images could be read [N], and their unit embeddings [N, D]."""
    assert file.prepare is not None
    samples = readable(part.split)
    chosen = np.arange(len(samples))
    if most is not None and most < len(samples):
        chosen = np.linspace(0, len(samples) - 1, most).astype(int)
    places: list[int] = []
    rows = [
        file.embed(np.stack(images)) for images in _batches(samples, chosen.tolist(), file.prepare, places)
    ]
    width = part.embeddings.shape[1]
    return np.array(places, dtype=int), np.concatenate(rows) if rows else np.empty((0, width), np.float32)


def _batches(
    samples: Sequence[Any], chosen: Sequence[int], prepare: Prepare, places: list[int]
) -> Iterator[list[NDArray[np.float32]]]:
    """Yield prepared photos, a batch at a time; ``places`` is told which those are."""
    waiting: list[NDArray[np.float32]] = []
    for place in chosen:
        try:
            (photo,) = samples[place].pictures()
        except (UnreadableImage, OSError):
            continue  # the run's pixels may be the cache's, and its files gone
        waiting.append(prepare(photo))
        places.append(place)
        if len(waiting) == BATCH:
            yield waiting
            waiting = []
    if waiting:
        yield waiting
