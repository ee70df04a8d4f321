"""Draws the demo's pictures: a patterned shape among clutter, in varying light, at any place and turn."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.runtime.atomic_files import replacing
from cache.runtime.progress import Progress, Silent
from cache.sources.splits import FOLDERS
from distill.demo.shapes import OWN, Array, Kinds, backdrop, jittered, soft, surface, turned
from distill.demo.words import BACKGROUNDS, CLASSES, ShapeClass, caption

JPEG_QUALITY = 90


@dataclass(frozen=True, kw_only=True, slots=True)
class Scene:
    """One picture, uint8 [S, S, 3], and its caption."""

    pixels: NDArray[np.uint8]
    caption: str


def draw_scene(
    shape_class: ShapeClass, rng: np.random.Generator, *, image_size: int = 64, kinds: Kinds = OWN
) -> Scene:
    """Draw one picture of a class of some ``kinds``; everything but the class is drawn from ``rng``."""
    axis = (np.arange(image_size) + 0.5) / image_size * 2 - 1
    y, x = np.meshgrid(axis, axis, indexing="ij")
    background = list(BACKGROUNDS)[rng.integers(len(BACKGROUNDS))]
    picture = backdrop(BACKGROUNDS[background], x, y, rng)
    for _ in range(rng.integers(2, 6)):
        _add_clutter(picture, x, y, rng, kinds)
    radius = rng.uniform(0.3, 0.62)
    centre = rng.uniform(-(0.95 - radius), 0.95 - radius, size=2)
    u, v = turned(x - centre[0], y - centre[1], rng.uniform(-0.6, 0.6), radius)
    mask = soft(kinds.shapes[shape_class.shape](u, v) * radius, image_size)
    pattern, colour = kinds.patterns[shape_class.pattern], kinds.colours[shape_class.colour]
    picture += mask[..., None] * (surface(pattern, colour, u, v, rng, jitter=28) - picture)
    light = 1 + rng.uniform(-0.35, 0.35) * x + rng.uniform(-0.35, 0.35) * y
    picture = picture * (light * rng.uniform(0.7, 1.15))[..., None]
    picture += rng.normal(0, rng.uniform(4, 14), size=picture.shape)
    words = caption(shape_class, size=_size_word(radius), place=_place_words(centre), background=background)
    return Scene(pixels=picture.clip(0, 255).astype(np.uint8), caption=words)


def _add_clutter(picture: Array, x: Array, y: Array, rng: np.random.Generator, kinds: Kinds) -> None:
    # Of any colour and shape, smaller than the object and plain, so that neither colour nor shape
    # alone gives the class away.
    colour = jittered(list(kinds.colours.values())[rng.integers(len(kinds.colours))], rng, 40)
    shape = list(kinds.shapes.values())[rng.integers(len(kinds.shapes))]
    radius = rng.uniform(0.06, 0.17)
    u, v = turned(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1), rng.uniform(0, 6.3), radius)
    mask = soft(shape(u, v) * radius, len(x))
    picture += rng.uniform(0.5, 1.0) * mask[..., None] * (colour - picture)


def _size_word(radius: float) -> str:
    return "small" if radius < 0.4 else "large" if radius > 0.52 else "medium"


def _place_words(centre: Array) -> str:
    x, y = centre
    if abs(x) < 0.15 and abs(y) < 0.15:
        return "in the middle"
    if abs(x) > abs(y):
        return "on the right" if x > 0 else "on the left"
    return "at the bottom" if y > 0 else "at the top"


def draw_dataset(
    out: Path,
    *,
    seed: int = 0,
    image_size: int = 64,
    train_per_class: int = 24,
    id_test_per_class: int = 10,
    ood_test_per_class: int = 12,
    progress: Progress | None = None,
) -> None:
    """Draw the data set into ``out`` in the layout of an image folder, with texts and captions.

    The same seed draws the same pictures. What is there already is drawn over with the same bytes;
    label2text.txt comes last, so a folder that has it is whole.
    """
    counts = {"train": train_per_class, "id_test": id_test_per_class, "ood_test": ood_test_per_class}
    progress, lines = progress or Silent(), []
    progress.start(sum(counts.values()) * len(CLASSES) // 2, "drawing")
    for split_number, (split, count) in enumerate(counts.items()):
        for number, shape_class in enumerate(CLASSES):
            if shape_class.in_distribution == (split == "ood_test"):
                continue
            rng = np.random.default_rng([seed, split_number, number])
            for index in range(count):
                scene = draw_scene(shape_class, rng, image_size=image_size)
                file = out / FOLDERS[split] / shape_class.folder / f"{index:03d}.jpg"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(scene.pixels).save(file, quality=JPEG_QUALITY)
                key = f"{FOLDERS[split]}/{shape_class.folder}/{file.name}"
                lines.append(json.dumps({"key": key, "caption": scene.caption}))
            progress.advance(count)
    texts = {
        "captions.jsonl": lines,
        "chatgpt.txt": [f"{one.folder}\t{one.description}" for one in CLASSES],
        "label2text.txt": [f"{one.folder} {i} {one.folder}" for i, one in enumerate(CLASSES, start=1)],
    }
    for name, content in texts.items():
        with replacing(out / name) as temporary:
            temporary.write_text("\n".join(content) + "\n", encoding="utf-8")
