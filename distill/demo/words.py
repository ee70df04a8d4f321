"""The demo's classes in words: pattern x colour x shape, their names, descriptions and captions."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

PATTERNS = {
    "plain": "of one even colour without any marks",
    "striped": "crossed by pale parallel stripes",
    "dotted": "covered with small pale dots",
    "checked": "covered with a chessboard of pale squares",
    "ringed": "marked with pale rings around its middle",
}
COLOURS = {
    "red": (205, 40, 40),
    "orange": (235, 140, 30),
    "green": (40, 150, 60),
    "blue": (45, 80, 205),
    "purple": (140, 50, 170),
}
SHAPES = {
    "circle": "round without corners",
    "square": "with four equal sides",
    "triangle": "with three pointed corners",
    "star": "with five arms",
}
BACKGROUNDS = {
    "grey": (128, 128, 128),
    "dark": (45, 45, 50),
    "light": (215, 215, 210),
    "brown": (130, 100, 75),
    "pale green": (165, 185, 155),
    "pale blue": (160, 175, 200),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ShapeClass:
    """One class of the demo."""

    pattern: str
    colour: str
    shape: str

    @property
    def name(self) -> str:
        """Its name, such as ``striped red star``."""
        return f"{self.pattern} {self.colour} {self.shape}"

    @property
    def folder(self) -> str:
        """Its folder."""
        return self.name.replace(" ", "_")

    @property
    def description(self) -> str:
        """One sentence on its look."""
        return (
            f"It is a {self.colour} {self.shape}, {SHAPES[self.shape]}, and its surface is "
            f"{PATTERNS[self.pattern]}."
        )

    @property
    def in_distribution(self) -> bool:
        """Half of the combinations are trained on; every pattern, colour and shape is among them."""
        places = (
            list(PATTERNS).index(self.pattern),
            list(COLOURS).index(self.colour),
            list(SHAPES).index(self.shape),
        )
        return sum(places) % 2 == 0


CLASSES = tuple(
    ShapeClass(pattern=pattern, colour=colour, shape=shape)
    for pattern, colour, shape in product(PATTERNS, COLOURS, SHAPES)
)


def caption(shape_class: ShapeClass, *, size: str, place: str, background: str) -> str:
    """Return what one picture shows, which is more than its class."""
    return f"a {size} {shape_class.name} {place} on a {background} background"
