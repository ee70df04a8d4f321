"""Shapes and surfaces, as functions of a place: what the demo's pictures are made of."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


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


def outside(shape: str, u: Array, v: Array) -> Array:
    """Return how far each point lies outside a shape of radius 1; negative inside."""
    if shape == "circle":
        return np.hypot(u, v) - 0.92
    if shape == "square":
        return np.maximum(abs(u), abs(v)) - 0.8
    if shape == "triangle":
        return np.maximum(abs(u) * 0.866 - v * 0.5, v) - 0.52
    reach = np.hypot(u, v) * (1 + 0.42 * np.cos(5 * (np.arctan2(u, -v) + np.pi)))
    return reach / 1.1 - 0.62 if shape == "star" else reach


def surface(
    pattern: str, colour: tuple[int, int, int], u: Array, v: Array, rng: np.random.Generator, *, jitter: float
) -> Array:
    """Return a patterned surface, [S, S, 3]: of about its colour, with paler marks."""
    own = jittered(colour, rng, jitter)
    pale = 0.25 * own + 0.75 * rng.uniform(215, 255, size=3)
    return own + marks(pattern, u, v, rng)[..., None] * (pale - own)


def soft(outside: Array, image_size: int) -> Array:
    """Return a mask [S, S], 0 to 1 over a pixel at the edge, of distances in units of half a picture."""
    return (0.5 - outside * image_size / 2).clip(0, 1)


def marks(pattern: str, u: Array, v: Array, rng: np.random.Generator) -> Array:
    """Return how pale each point of the surface is, 0 to 1."""
    pitch, shift = rng.uniform(5.5, 8.0), rng.uniform(0, 6.3, size=2)
    a, b = np.sin(pitch * u + shift[0]), np.sin(pitch * v + shift[1])
    waves = {
        "plain": np.full_like(u, -1.0),
        "striped": a,
        "dotted": a + b - 1.05,
        "checked": a * b * 2,
        "ringed": np.sin(1.25 * pitch * np.hypot(u, v) + shift[0]),
    }
    return (0.5 + 4 * waves[pattern]).clip(0, 1)
