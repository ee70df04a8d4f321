"""Pictures without a label, which belong to the demo's data: a pool, and some of none of its classes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from cache.sources.splits import FOLDERS
from distill.demo.others import OTHER_CLASSES, OTHERS
from distill.demo.scenes import JPEG_QUALITY, draw_scene
from distill.demo.shapes import OWN, Kinds
from distill.demo.words import CLASSES, ShapeClass

# The folder of some of none of its classes, beside the data; a demo draws it first.
UNKNOWN = "unknown"
# Of the other classes those of half of the patterns are in the pool; what is unknown is of the other half.
IN_POOL = len(OTHER_CLASSES) // 2
# Beside those of the splits that have labels.
_POOL, _UNKNOWN, _NEW = 3, 4, 5


def draw_pool(data: Path, *, seed: int = 0, per_class: int = 10, others: int = 200) -> None:
    """Draw ``per_class`` pictures of every class of the demo, and ``others`` of none, into ``data``'s pool.

    No name says what is in one: they lie in an order of their own.
    """
    own = [(one, OWN) for one in CLASSES for _ in range(per_class)]
    _draw(data / FOLDERS["pool"], [*own, *_others(OTHER_CLASSES[:IN_POOL], others)], [seed, _POOL])


def draw_unknown(out: Path, *, seed: int = 0, count: int = 200) -> None:
    """Draw pictures of none of the demo's classes, and of no pattern that is in the pool."""
    _draw(out, _others(OTHER_CLASSES[IN_POOL:], count), [seed, _UNKNOWN])


def draw_new(file: Path, shape_class: ShapeClass, *, seed: int = 0) -> None:
    """Draw one picture of a class, that is in no split."""
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(draw_scene(shape_class, np.random.default_rng([seed, _NEW])).pixels).save(
        file, quality=JPEG_QUALITY
    )


def _others(classes: Sequence[ShapeClass], count: int) -> list[tuple[ShapeClass, Kinds]]:
    """Return ``count`` classes, spread over these: a step that is prime to their number meets all."""
    return [(classes[(7 * i) % len(classes)], OTHERS) for i in range(count)]


def _draw(folder: Path, shown: Sequence[tuple[ShapeClass, Kinds]], seed: Sequence[int]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number, at in enumerate(rng.permutation(len(shown)).tolist()):
        shape_class, kinds = shown[at]
        scene = draw_scene(shape_class, rng, kinds=kinds)
        Image.fromarray(scene.pixels).save(folder / f"{number:05d}.jpg", quality=JPEG_QUALITY)
