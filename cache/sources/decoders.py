"""What decodes a student's photos and squashes them: one decoder a run, which its model keeps.

``pillow`` is what the teacher's photos go through. ``torchvision`` is about twice as fast: JPEG files of grey
or three colours are decoded by torchvision.io, all others by Pillow, and torch squashes them. Its pixels
differ from Pillow's by at most a level, where a mean lies between two whole numbers. For Pillow no torch is
imported.
"""

from __future__ import annotations

import io
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cache.sources.decoding import Decoding, reading_picture
from cache.sources.picture_formats import opened
from cache.sources.resizing import MOST_BETWEEN, resized

if TYPE_CHECKING:
    from torch import Tensor

PILLOW, TORCHVISION, AUTO = "pillow", "torchvision", "auto"
DECODERS = (PILLOW, TORCHVISION)


def chosen(decoder: str) -> str:
    """Return the decoder that a setting means: ``auto`` is torchvision where it loads, else Pillow."""
    if decoder != AUTO:
        return decoder
    return PILLOW if _torchvision() is None else TORCHVISION


def in_its_place(decoder: str) -> str:
    """Say that another decodes here than should; '' where it loads."""
    if decoder != TORCHVISION or _torchvision() is not None:
        return ""
    return "photos are decoded by Pillow: torchvision.io, which this run decodes with, does not load here"


def squash(content: bytes, side: int, decoding: Decoding, *, decoder: str, name: str) -> NDArray[np.uint8]:
    """Return a photo, the bytes of its file, as ``side`` x ``side`` pixels RGB, uint8 [side, side, 3].

    Raises
    ------
    UnreadableImage, OSError
        As :func:`cache.sources.decoding.load_rgb`, whatever the decoder.
    """
    if decoder == TORCHVISION and (jpeg := _jpeg(content, decoding, name)) is not None:
        return _squashed_by_torch(jpeg, side)
    return squash_picture(decoding.picture(content, name), side, decoder=decoder)


def squash_picture(picture: Image.Image, side: int, *, decoder: str) -> NDArray[np.uint8]:
    """Return a decoded RGB picture as :func:`squash` does."""
    if decoder == TORCHVISION and _torch() is not None:
        return _squashed_by_torch(np.array(picture), side)
    return np.array(resized(picture, side, side, Image.Resampling.BILINEAR))


def _jpeg(content: bytes, decoding: Decoding, name: str) -> NDArray[np.uint8] | None:
    """Return the pixels [H, W, 3] of a JPEG that torchvision.io decodes; None of what it is not to decode."""
    vision = _torchvision()
    if vision is None or not content.startswith(b"\xff\xd8\xff"):
        return None
    with reading_picture(name), opened(io.BytesIO(content)) as header:
        decoding.check(header)
        if header.mode not in ("L", "RGB"):
            return None
        given = vision.torch.frombuffer(bytearray(content), dtype=vision.torch.uint8)
        try:
            pixels = vision.io.decode_jpeg(given, mode=vision.io.ImageReadMode.RGB)
        except RuntimeError:  # what it refuses is for Pillow to say
            return None
        return decoding.turned_pixels(pixels.permute(1, 2, 0).numpy(), header)


def _squashed_by_torch(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    if side * pixels.shape[0] > max(MOST_BETWEEN, 4 * pixels.shape[0] * pixels.shape[1]):
        return np.array(resized(Image.fromarray(pixels), side, side, Image.Resampling.BILINEAR))
    torch = _torch()
    picture: Tensor = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    squashed: Tensor = torch.nn.functional.interpolate(
        picture, size=(side, side), mode="bilinear", antialias=True
    )
    return np.ascontiguousarray(squashed[0].permute(1, 2, 0).numpy())


@lru_cache(maxsize=1)
def _torch() -> Any:
    """Return torch; None where it is not installed, as beside a model that is only shipped."""
    try:
        import torch
    except ImportError:
        return None
    return torch


class _Vision:
    """torchvision.io, and the torch that it is of."""

    def __init__(self) -> None:
        import torch

        from cache.runtime.torchvision_compat import torchvision

        self.torch, self.io = torch, torchvision.io
        # The package is there without its library where that was compiled for another torch.
        torch.ops.image.decode_jpeg  # noqa: B018


@lru_cache(maxsize=1)
def _torchvision() -> Any:
    """Return what decodes; None where torchvision is not installed, or its library does not load."""
    try:
        return _Vision()
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None
