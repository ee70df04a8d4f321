"""Tars of pictures, as plain webdataset writes them."""

from __future__ import annotations

import io

import numpy as np
import webdataset
from PIL import Image


def picture(number, format="PNG", side=12):
    """The file of a picture that is a function of a number."""
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format)
    return file.getvalue()


def write_tar(path, samples, **more):
    """Write ``{key: {ending: bytes or text}}``, or pairs of such, with plain webdataset."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path), encoder=False, **more) as tar:
        for key, files in samples.items() if isinstance(samples, dict) else samples:
            raw = {name: one.encode() if isinstance(one, str) else one for name, one in files.items()}
            tar.write({"__key__": key, **raw})
    return path


def photos(first, count, name="apple", ending="png"):
    """Labelled samples of so many pictures, by key."""
    return {f"{n:06d}": {ending: picture(n), "cls": name} for n in range(first, first + count)}
