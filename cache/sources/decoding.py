"""How one picture is decoded: to 8-bit RGB, by what its bytes are and not by its name."""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from PIL import (
    Image,
    WebPImagePlugin,  # noqa: F401 (which makes WEBP known; Pillow alone looks for it only where all else fails)
)

from cache.runtime.system_errors import is_the_systems

if TYPE_CHECKING:
    from torch import Tensor

# Endings of files that are taken to be pictures before they are opened.
ENDINGS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp"})
# How the files of each begin: bytes, and where they stand.
_BEGINNINGS = (
    ("jpg", 0, b"\xff\xd8\xff"),
    ("png", 0, b"\x89PNG\r\n\x1a\n"),
    ("webp", 8, b"WEBP"),
    ("bmp", 0, b"BM"),
)
# What those endings promise. Pillow would try all it knows, PostScript too.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP")


class UnreadableImage(Exception):
    """A file that has an image's name but cannot be decoded; the message says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How pictures are decoded.

    ``exif``: they are turned as their EXIF orientation says. One of more than ``max_pixels`` is left out.
    """

    exif: bool = True
    max_pixels: int = 89_478_485  # Pillow's own

    def picture(self, content: bytes, name: str) -> Image.Image:
        """Decode the bytes of one picture, called ``name`` in messages; raises as :func:`load_rgb`."""
        return load_rgb(io.BytesIO(content), name=name)


PLAIN = Decoding()


def ending_of(content: bytes) -> str:
    """Return the usual ending of a picture's file, such as ``jpg``, by its first bytes; '' for no picture."""
    return next((name for name, at, begins in _BEGINNINGS if content[at:].startswith(begins)), "")


def load_rgb(path: Path | BinaryIO, *, name: str = "given") -> Image.Image:
    """Decode one image, a file or an open one, to 8-bit RGB, as torchvision's ImageFolder does.

    Transparency is dropped, not blended; EXIF orientation is not applied; a truncated file is an
    error. One departure: 16-bit grey is scaled to 8 bits, where Pillow's conversion would clip
    nearly all of it to white.

    Raises
    ------
    UnreadableImage
        If the file cannot be opened or decoded, is of another format, or has more pixels than Pillow allows
        (90 million).
    OSError
        If the system is the reason, not the file.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of transparent palettes and odd EXIF; neither changes the RGB result.
            warnings.simplefilter("ignore")
            with Image.open(path, formats=FORMATS) as image:
                # Pillow only warns up to twice its limit, and warnings are a matter of all threads at once.
                most = Image.MAX_IMAGE_PIXELS
                if most is not None and image.width * image.height > most:
                    size = f"{image.width:,} x {image.height:,}"
                    raise Image.DecompressionBombError(f"{size} pixels are more than {most:,}")
                if image.mode.startswith("I"):
                    return (
                        image.convert("I").point(lambda value: value * (1 / 256)).convert("L").convert("RGB")
                    )
                return image.convert("RGB")
    # Pillow's decoders raise nearly anything on a broken file (OSError, SyntaxError, ValueError,
    # struct.error, ...); each of them means the same to us.
    except Exception as error:
        if isinstance(error, OSError) and is_the_systems(error):
            raise  # other images will fail as well: to skip this one would be to lose them all, quietly
        name = path.name if isinstance(path, Path) else name
        reason = str(error).replace(str(path), name) or type(error).__name__
        raise UnreadableImage(reason.splitlines()[0]) from error


def squashed(picture: Image.Image, side: int) -> Tensor:
    """Return an RGB picture squashed to ``side`` x ``side`` (bilinear), uint8 [3, side, side]."""
    import numpy as np
    import torch

    pixels = np.array(picture.resize((side, side), Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)
