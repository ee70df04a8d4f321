"""Other classes than the demo's: no pattern, colour or shape of theirs. What the demo's trunk is trained on.

The demo draws some of them, too, as pictures of none of its classes.
"""

from __future__ import annotations

from itertools import product

import numpy as np

from distill.demo.shapes import Array, Kinds
from distill.demo.words import ShapeClass


def _wavy(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(pitch * u + 1.6 * np.sin(0.8 * pitch * v + shift[0]) + shift[1])


def _zigzag(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(pitch * v + 2.2 * np.arcsin(np.sin(pitch * u + shift[0])) + shift[1])


def _gridded(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.maximum(np.cos(0.8 * pitch * u + shift[0]), np.cos(0.8 * pitch * v + shift[1])) * 2 - 1.6


def _rayed(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(round(1.3 * pitch) * np.arctan2(v, u) + shift[0])


def _swirled(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return np.sin(3 * np.arctan2(v, u) + pitch * np.hypot(u, v) + shift[0])


def _mottled(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    a = np.sin(0.9 * pitch * u + 0.5 * pitch * v + shift[0]) + np.sin(1.3 * pitch * v - 0.4 * pitch * u)
    return a + np.sin(0.7 * pitch * (u - v) + shift[1]) - 0.3


def _halved(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    return 3 * (np.cos(shift[0]) * u + np.sin(shift[0]) * v)


def _bricked(u: Array, v: Array, pitch: float, shift: Array) -> Array:
    row = np.floor(0.24 * pitch * v + shift[0])
    across, down = 0.14 * pitch * u + shift[1] + 0.5 * (row % 2), 0.24 * pitch * v + shift[0]
    return np.maximum(0.22 - across % 1, 0.3 - down % 1) * 12


def _cross(u: Array, v: Array) -> Array:
    return np.minimum(np.maximum(abs(u) - 0.3, abs(v) - 0.9), np.maximum(abs(v) - 0.3, abs(u) - 0.9))


def _ring(u: Array, v: Array) -> Array:
    return abs(np.hypot(u, v) - 0.7) - 0.22


def _crescent(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u, v) - 0.92, 0.72 - np.hypot(u - 0.42, v))


def _heart(u: Array, v: Array) -> Array:
    x, y = abs(u), -v
    lobes = np.hypot(x - 0.42, y - 0.32) - 0.46
    tip = np.maximum(x * 0.73 - y * 0.68 - 0.57, y - 0.32)
    return np.minimum(lobes, tip)


def _hexagon(u: Array, v: Array) -> Array:
    return np.maximum(abs(u) * 0.866 + abs(v) * 0.5, abs(v)) - 0.8


def _oval(u: Array, v: Array) -> Array:
    return (np.hypot(u / 1.0, v / 0.55) - 0.95) * 0.6


def _arrow(u: Array, v: Array) -> Array:
    head = np.maximum(abs(u) * 0.8 - (v + 0.85) * 0.6, v + 0.05)
    return np.minimum(head, np.maximum(abs(u) - 0.24, abs(v - 0.35) - 0.5))


def _dome(u: Array, v: Array) -> Array:
    return np.maximum(np.hypot(u, v - 0.4) - 0.95, v - 0.4)


OTHERS = Kinds(
    patterns={
        "wavy": _wavy,
        "zigzag": _zigzag,
        "gridded": _gridded,
        "rayed": _rayed,
        "swirled": _swirled,
        "mottled": _mottled,
        "halved": _halved,
        "bricked": _bricked,
    },
    colours={
        "yellow": (235, 215, 60),
        "cyan": (60, 200, 215),
        "pink": (240, 130, 180),
        "brown": (120, 75, 40),
        "black": (38, 38, 42),
        "teal": (20, 120, 120),
        "lime": (150, 210, 50),
        "maroon": (110, 20, 50),
    },
    shapes={
        "cross": _cross,
        "ring": _ring,
        "crescent": _crescent,
        "heart": _heart,
        "hexagon": _hexagon,
        "oval": _oval,
        "arrow": _arrow,
        "dome": _dome,
    },
)
OTHER_CLASSES = tuple(
    ShapeClass(pattern=pattern, colour=colour, shape=shape)
    for pattern, colour, shape in product(OTHERS.patterns, OTHERS.colours, OTHERS.shapes)
)
