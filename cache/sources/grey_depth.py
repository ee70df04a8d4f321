"""Grey pictures of more than 8 bits, as 8-bit grey: scaled by the depth that their numbers have."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

# How many bits a pixel has in the files of cameras and scanners. Most are written as 16 whatever they have.
DEPTHS = (8, 10, 12, 14, 16, 24, 32)
BITS_PER_SAMPLE = 258


def grey_of(image: Image.Image) -> Image.Image:
    """Return a decoded picture of mode I;16, I or F as mode L.

    Whole numbers are scaled by the smallest usual depth that holds the brightest pixel, 8, 10, 12, 14 or 16
    bits: a 12-bit picture in a 16-bit file is as bright as it was taken, and white is white. A TIFF that says
    its depth, and it is not a whole number of bytes, is taken at its word. Fractions of at most 1 are shares
    of white. What is negative or no number is black.
    """
    pixels = np.asarray(image)
    if pixels.dtype.kind == "f":
        pixels = np.nan_to_num(pixels, nan=0.0, posinf=0.0, neginf=0.0)
    brightest = float(pixels.max(initial=0))
    if pixels.dtype.kind == "f" and brightest <= 1:
        white = 1.0
    else:
        bits = _own_depth(image) or next((bits for bits in DEPTHS if brightest < 2**bits), 0)
        white = float(2**bits - 1) if bits else brightest
    return Image.fromarray(_scaled(pixels, white))


def _own_depth(image: Image.Image) -> int:
    """Return the bits that a TIFF says a pixel has, where they are not those that any number is kept in."""
    bits = getattr(image, "tag_v2", {}).get(BITS_PER_SAMPLE, (0,))
    bits = int(bits[0] if isinstance(bits, tuple) else bits)
    return bits if bits % 8 and bits <= 16 else 0


def _scaled(pixels: NDArray[np.generic], white: float) -> NDArray[np.uint8]:
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize == 2:  # a table is faster, and takes no memory
        table = np.minimum(np.arange(2**16) * (255 / white) + 0.5, 255).astype(np.uint8)
        return table[pixels]
    scaled = pixels.astype(np.float32)
    scaled *= np.float32(255 / white)
    scaled += np.float32(0.5)
    return np.clip(scaled, 0, 255, out=scaled).astype(np.uint8)
