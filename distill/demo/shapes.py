"""Shapes and surfaces, as functions of a place: what the demo's pictures are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from distill.demo.words import COLOURS

Array = NDArray[np.float64]
Pattern = Callable[[Array, Array, float, Array], Array]
"""Of points u, v, a pitch and two shifts: above 0 where a surface is pale."""
Shape = Callable[[Array, Array], Array]
"""Of points u, v: how far each lies outside a shape of radius 1; negative inside."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kinds:
    """What objects are made of, by name: patterns, colours and shapes."""

    patterns: dict[str, Pattern]
    colours: dict[str, tuple[int, int, int]]
    shapes: dict[str, Shape]


def jittered(colour: tuple[int, int, int], rng: np.random.Generator, amount: float) -> Array:
    """Return a colour changed by up to ``amount`` a channel."""
    return (np.array(colour) + rng.uniform(-amount, amount, size=3)).clip(0, 255)


def backdrop(colour: tuple[int, int, int], x: Array, y: Array, rng: np.random.Generator) -> Array:
    """Return an uneven ground of one colour, [S, S, 3]."""
    waves = np.zeros_like(x)
    for _ in range(3):
        waves += np.sin(rng.uniform(1, 9) * x + rng.uniform(1, 9) * y + rng.uniform(0, 6.3))
    return jittered(colour, rng, 18) + 9 * waves[..., None]


def turned(x: Array, y: Array, angle: float, radius: float) -> tuple[Array, Array]:
    """Return coordinates turned by ``angle`` (radians), in units of ``radius``."""
    cos, sin = np.cos(angle), np.sin(angle)
    return (cos * x + sin * y) / radius, (cos * y - sin * x) / radius


def surface(
    pattern: Pattern,
    colour: tuple[int, int, int],
    u: Array,
    v: Array,
    rng: np.random.Generator,
    *,
    jitter: float,
) -> Array:
    """Return a patterned surface, [S, S, 3]: of about its colour, with paler marks."""
    own = jittered(colour, rng, jitter)
    pale = 0.25 * own + 0.75 * rng.uniform(215, 255, size=3)
    return own + marks(pattern, u, v, rng)[..., None] * (pale - own)


def soft(outside: Array, image_size: int) -> Array:
    """Return a mask [S, S], 0 to 1 over a pixel at the edge, of distances in units of half a picture."""
    return (0.5 - outside * image_size / 2).clip(0, 1)


def marks(pattern: Pattern, u: Array, v: Array, rng: np.random.Generator) -> Array:
    """Return how pale each point of the surface is, 0 to 1."""
    pitch, shift = rng.uniform(5.5, 8.0), rng.uniform(0, 6.3, size=2)
    return (0.5 + 4 * pattern(u, v, pitch, shift)).clip(0, 1)


def _plain(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.full_like(u, -1.0)


def _striped(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(pitch * u + shift[0])


def _dotted(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(pitch * u + shift[0]) + np.sin(pitch * v + shift[1]) - 1.05


def _checked(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(pitch * u + shift[0]) * np.sin(pitch * v + shift[1]) * 2


def _ringed(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(1.25 * pitch * np.hypot(u, v) + shift[0])


def _circle(u: Array, v: Array) -> Array:
    return np.hypot(u, v) - 0.92


def _square(u: Array, v: Array) -> Array:
    return np.maximum(abs(u), abs(v)) - 0.8


def _triangle(u: Array, v: Array) -> Array:
    return np.maximum(abs(u) * 0.866 - v * 0.5, v) - 0.52


def _star(u: Array, v: Array) -> Array:
    return np.hypot(u, v) * (1 + 0.42 * np.cos(5 * (np.arctan2(u, -v) + np.pi))) / 1.1 - 0.62


OWN = Kinds(
    patterns={
        "plain": _plain,
        "striped": _striped,
        "dotted": _dotted,
        "checked": _checked,
        "ringed": _ringed,
    },
    colours=COLOURS,
    shapes={"circle": _circle, "square": _square, "triangle": _triangle, "star": _star},
)
