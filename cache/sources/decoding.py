"""How one picture is decoded: to 8-bit RGB, by what its bytes are and not by its name."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from cache.runtime.machine_limits import PICTURE_PIXELS
from cache.runtime.system_errors import is_the_systems
from cache.sources.accounts import Reason
from cache.sources.grey_depth import grey_of
from cache.sources.picture_formats import FORMATS, NoPicture, format_of, opened
from cache.sources.resizing import resized

if TYPE_CHECKING:
    from torch import Tensor


# Endings of files that are taken to be pictures before they are opened.
ENDINGS = frozenset(f".{ending}" for endings in FORMATS.values() for ending in endings)
# How a picture is turned to be seen as EXIF means it.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class UnreadableImage(Exception):
    """A file that has an image's name but cannot be decoded; the message says why."""


class _TooManyPixels(ValueError):
    """A picture of more pixels than are wanted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoding:
    """How pictures are decoded.

    ``exif``: they are turned as their EXIF orientation says. One of more than ``max_pixels`` is left out.
    """

    exif: bool = True
    max_pixels: int = PICTURE_PIXELS

    def __post_init__(self) -> None:
        if self.max_pixels < 1:
            raise ValueError(f"max_pixels is {self.max_pixels!r:.40}")

    def picture(self, content: bytes, name: str) -> Image.Image:
        """Decode the bytes of one picture, called ``name`` in messages; raises as :func:`load_rgb`."""
        return load_rgb(io.BytesIO(content), name=name, decoding=self)

    def check(self, header: Image.Image) -> None:
        """Raise a ValueError for a picture, of which nothing is decoded yet, that has too many pixels."""
        width, height = header.size
        if width * height > self.max_pixels:
            raise _TooManyPixels(f"{width:,} x {height:,}, more than {self.max_pixels:,}")

    def turned(self, picture: Image.Image, header: Image.Image) -> Image.Image:
        """Return a decoded picture as it is to be seen, by the EXIF of its file."""
        turn = _TURNS.get(_orientation(header)) if self.exif else None
        return picture if turn is None else picture.transpose(turn)

    def turned_pixels(self, pixels: NDArray[np.uint8], header: Image.Image) -> NDArray[np.uint8]:
        """Return pixels [H, W, 3] as :meth:`turned` does, in one piece of memory."""
        if not self.exif or _orientation(header) not in _TURNS:
            return pixels
        return np.array(self.turned(Image.fromarray(pixels), header))


PLAIN = Decoding()


def ending_of(content: bytes) -> str:
    """Return the usual ending of a picture's file, such as ``jpg``, by its first bytes; '' for no picture."""
    return FORMATS.get(format_of(content), ("",))[0]


def load_rgb(path: Path | BinaryIO, *, name: str = "given", decoding: Decoding = PLAIN) -> Image.Image:
    """Decode one image, a file or an open one, to 8-bit RGB: the first, where it has several.

    Transparency is dropped, not blended, as torchvision's ImageFolder does; grey of more than 8 bits is
    scaled (:func:`cache.sources.grey_depth.grey_of`), where Pillow's conversion would clip nearly all of it
    to white. How TIFF and HEIF say that a picture lies is part of their format, and always heeded.

    Raises
    ------
    UnreadableImage
        If the file cannot be opened or decoded, is cut, is of no format of
        :mod:`cache.sources.picture_formats` or has too many pixels. Its words begin with the
        :class:`~cache.sources.accounts.Reason` where that is another than being unreadable.
    OSError
        If the system is the reason, not the file.
    """
    if isinstance(path, Path):
        with reading_picture(path.name, str(path)), open(path, "rb") as file:
            return _rgb(file, decoding)
    with reading_picture(name):
        return _rgb(path, decoding)


@contextmanager
def reading_picture(name: str, path: str = "") -> Iterator[None]:
    """Turn what reading a picture called ``name`` raises into an UnreadableImage that says why."""
    try:
        with warnings.catch_warnings():
            # Pillow warns of transparent palettes and odd EXIF; neither changes the RGB result.
            warnings.simplefilter("ignore")
            yield
    except _TooManyPixels as error:
        raise UnreadableImage(f"{Reason.TOO_LARGE}: {error}") from None
    except NoPicture as error:
        raise UnreadableImage(f"{Reason.FORMAT}: {error}") from None
    # Pillow's decoders raise nearly anything on a broken file (OSError, SyntaxError, ValueError,
    # struct.error, ...); each of them means the same to us.
    except Exception as error:
        if isinstance(error, OSError) and is_the_systems(error):
            raise  # other images will fail as well: to skip this one would be to lose them all, quietly
        reason = str(error).replace(path, name) if path else str(error)
        raise UnreadableImage((reason or type(error).__name__).splitlines()[0]) from error


def _rgb(file: BinaryIO, decoding: Decoding) -> Image.Image:
    with opened(file) as image:
        decoding.check(image)
        image.load()
        grey = image.mode == "F" or image.mode.startswith("I")
        return decoding.turned((grey_of(image) if grey else image).convert("RGB"), image)


def _orientation(header: Image.Image) -> int:
    """Return the EXIF orientation of a picture; that of EXIF which cannot be read is 1."""
    try:
        return int(header.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # as its decoders, and of odd EXIF no picture is unreadable
        return 1


def content_of(read: Callable[[], bytes]) -> bytes:
    """Return the bytes that ``read`` gives; UnreadableImage, or OSError where the system is the reason."""
    try:
        return read()
    except OSError as error:
        if is_the_systems(error):
            raise
        raise UnreadableImage(error.strerror or str(error)) from error


def squashed(picture: Image.Image, side: int) -> Tensor:
    """Return an RGB picture squashed to ``side`` x ``side`` (bilinear), uint8 [3, side, side]."""
    import torch

    pixels = np.array(resized(picture, side, side, Image.Resampling.BILINEAR))
    return torch.from_numpy(pixels).permute(2, 0, 1)
