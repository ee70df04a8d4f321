"""Draws the demo's episodes: patterned shapes on a table, seen by two cameras, with depth."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.sources.class_texts import DESCRIPTIONS
from cache.sources.episode_keys import RESEARCH_KEYS
from cache.sources.episode_texts import NEGATIVES
from cache.sources.episodes import ENDING, CameraFrame
from cache.sources.splits import FOLDERS
from distill.demo.shapes import OWN, Array, backdrop, soft, surface, turned
from distill.demo.words import BACKGROUNDS, CLASSES, ShapeClass

ID_OBJECTS, OOD_OBJECTS = 14, 12
# Of the objects' texts: the small CLIP that ships has never read the word "cannot".
TEMPLATE, NEGATIVE_TEMPLATE = "a photo of {}", "a grey background"
MOST_OBJECTS = 3
# Distances in metres, as a depth camera would give them.
BASE_HEIGHT, HAND_HEIGHT, OBJECT_HEIGHT = 1.2, 0.5, 0.12
ARM = (95, 98, 105)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Thing:
    """One object on the table: what it is, where, and the seed of how it looks."""

    shape_class: ShapeClass
    centre: tuple[float, float]
    radius: float
    angle: float
    look: int


@dataclass(frozen=True, kw_only=True, slots=True)
class _Camera:
    """Where a camera looks: a place on the table, how much of it is in view, its turn and its height."""

    centre: tuple[float, float]
    reach: float
    angle: float
    height: float


def id_and_ood_objects() -> tuple[tuple[ShapeClass, ...], tuple[ShapeClass, ...]]:
    """Return the 14 ID and the 12 OOD objects, spread over the demo's classes."""
    trained, new = ([one for one in CLASSES if one.in_distribution == own] for own in (True, False))
    # Steps that are prime to the numbers of patterns, colours and shapes meet all of them.
    return (
        tuple(trained[(7 * i) % len(trained)] for i in range(ID_OBJECTS)),
        tuple(new[(7 * i + 3) % len(new)] for i in range(OOD_OBJECTS)),
    )


def model_id(shape_class: ShapeClass) -> str:
    """Return an object's name in the files, such as ``011_striped_red_star``."""
    return f"{CLASSES.index(shape_class):03d}_{shape_class.folder}"


def draw_episode(
    shown: list[ShapeClass], rng: np.random.Generator, *, image_size: int
) -> dict[str, CameraFrame]:
    """Draw one episode of some objects; everything but the objects is drawn from ``rng``."""
    things: list[_Thing] = []
    for shape_class in shown:
        radius = rng.uniform(0.24, 0.34)
        centre = _free_place(things, radius, rng)
        angle, look = rng.uniform(-0.6, 0.6), int(rng.integers(2**31))
        things.append(_Thing(shape_class=shape_class, centre=centre, radius=radius, angle=angle, look=look))
    held = things[rng.integers(len(things))]
    ground = list(BACKGROUNDS.values())[rng.integers(len(BACKGROUNDS))]
    light = int(rng.integers(2**31))
    base = _Camera(centre=(0.0, 0.0), reach=1.1, angle=0.0, height=BASE_HEIGHT)
    near = _Camera(
        centre=tuple(rng.normal(held.centre, 0.08)),
        reach=rng.uniform(0.5, 0.75),
        angle=rng.uniform(-0.5, 0.5),
        height=HAND_HEIGHT,
    )
    return {
        "base": _seen(base, things, ground, light, image_size, rng, arm_at=held.centre),
        "hand": _seen(near, things, ground, light, image_size, rng),
    }


def _free_place(things: list[_Thing], radius: float, rng: np.random.Generator) -> tuple[float, float]:
    room = 0.95 - radius
    places = rng.uniform(-room, room, size=(64, 2))
    for place in places:
        if all(np.hypot(*(place - thing.centre)) > 0.9 * (radius + thing.radius) for thing in things):
            return float(place[0]), float(place[1])
    return float(places[0][0]), float(places[0][1])


def _seen(
    camera: _Camera,
    things: list[_Thing],
    ground: tuple[int, int, int],
    light: int,
    image_size: int,
    rng: np.random.Generator,
    *,
    arm_at: tuple[float, float] | None = None,
) -> CameraFrame:
    axis = (np.arange(image_size) + 0.5) / image_size * 2 - 1
    across, down = np.meshgrid(axis, axis)
    u, v = turned(across, down, camera.angle, 1 / camera.reach)
    x, y = u + camera.centre[0], v + camera.centre[1]
    of_scene = np.random.default_rng(light)
    picture = backdrop(ground, x, y, of_scene)
    depth = camera.height * (1 + 0.08 * down)
    for thing in things:
        _put(picture, depth, thing, x, y, camera, image_size)
    shade = 1 + of_scene.uniform(-0.2, 0.2) * x + of_scene.uniform(-0.2, 0.2) * y
    picture *= (shade * of_scene.uniform(0.75, 1.1))[..., None]
    if arm_at is not None:
        _put_arm(picture, depth, x, y, arm_at)
    picture += rng.normal(0, rng.uniform(3, 8), size=picture.shape)
    depth = depth + rng.normal(0, 0.004, size=depth.shape)
    return CameraFrame(rgb=picture.clip(0, 255).astype(np.uint8), depth=depth.astype(np.float32)[..., None])


def _put(
    picture: Array, depth: Array, thing: _Thing, x: Array, y: Array, camera: _Camera, image_size: int
) -> None:
    look = np.random.default_rng(thing.look)
    u, v = turned(x - thing.centre[0], y - thing.centre[1], thing.angle, thing.radius)
    one = thing.shape_class
    mask = soft(OWN.shapes[one.shape](u, v) * thing.radius / camera.reach, image_size)
    pattern, colour = OWN.patterns[one.pattern], OWN.colours[one.colour]
    picture += mask[..., None] * (surface(pattern, colour, u, v, look, jitter=22) - picture)
    depth -= mask * OBJECT_HEIGHT * (1 - 0.4 * np.hypot(u, v)).clip(0.3, 1)


def _put_arm(picture: Array, depth: Array, x: Array, y: Array, arm_at: tuple[float, float]) -> None:
    """Draw the robot's arm, which comes from the top and ends above what the hand looks at."""
    above = (abs(x - arm_at[0]) < 0.07) & (y < arm_at[1] - 0.25)
    picture[above] = ARM
    depth[above] = BASE_HEIGHT / 2


def draw_episodes(
    out: Path,
    *,
    seed: int = 0,
    image_size: int = 64,
    train: int = 480,
    id_test: int = 120,
    ood_test: int = 160,
) -> dict[str, int]:
    """Draw episode files into ``out``, with descriptions; return how many episodes each has.

    ``train`` and ``id_test`` show one to three ID objects, ``ood_test`` at least one OOD object among them.
    The same seed draws the same episodes.

    Raises
    ------
    UserError
        If ``out`` is a file, or there are too few episodes to show every object.
    """
    id_objects, ood_objects = id_and_ood_objects()
    least = {"train": ID_OBJECTS, "id_test": 1, "ood_test": OOD_OBJECTS}
    counts = {"train": train, "id_test": id_test, "ood_test": ood_test}
    for name, count in counts.items():
        if count < least[name]:
            raise UserError(f"{name} is to have {count} episodes", fix=f"give at least {least[name]}.")
    for number, (name, count) in enumerate(counts.items()):
        rng = np.random.default_rng([seed, number])
        with replacing(out / f"{FOLDERS[name]}{ENDING}") as temporary, open_hdf5(temporary, "w") as file:
            for i in range(count):
                of_split = ood_objects if name == "ood_test" else id_objects
                others = id_objects + ood_objects if name == "ood_test" else id_objects
                shown = _chosen(of_split[i % len(of_split)], others, rng)
                _write(file, f"episode_{i:05d}", draw_episode(shown, rng, image_size=image_size), shown)
    ordered = sorted(id_objects, key=model_id) + sorted(ood_objects, key=model_id)
    negative = "Nothing {} with the surface of a {} is to be seen."
    texts = {
        DESCRIPTIONS: [f"{model_id(one)}\t{one.description}" for one in ordered],
        NEGATIVES: [f"{model_id(one)}\t{negative.format(one.colour, one.shape)}" for one in ordered],
    }
    for file_name, lines in texts.items():
        with replacing(out / file_name) as temporary:
            temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return counts


def _chosen(first: ShapeClass, others: tuple[ShapeClass, ...], rng: np.random.Generator) -> list[ShapeClass]:
    rest = [one for one in others if one != first]
    more = rng.choice(len(rest), size=rng.integers(0, MOST_OBJECTS), replace=False)
    return [first, *(rest[i] for i in more)]


def _write(file: h5py.File, key: str, frames: dict[str, CameraFrame], shown: list[ShapeClass]) -> None:
    episode = file.create_group(key)
    for camera in RESEARCH_KEYS.cameras:
        episode[camera.rgb], episode[camera.depth] = frames[camera.name].rgb, frames[camera.name].depth
    episode[RESEARCH_KEYS.objects] = np.array([model_id(one).encode() for one in shown])
