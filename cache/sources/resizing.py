"""Pictures of any shape -> few pixels: what would be cut away again is never made."""

from __future__ import annotations

import math
from typing import NamedTuple

from PIL import Image

# So many pixels of a picture may be made on the way from one size to another: 64 MB.
MOST_BETWEEN = 2**24
# From this ratio of the sides on, what a crop leaves over is not made. Below it nothing differs by a bit.
THIN = 16
# A pixel of a resized picture is made of so many around it, or as many of those that it is as large as.
MOST_SUPPORT = 3


def resized(
    picture: Image.Image,
    width: int,
    height: int,
    resampling: Image.Resampling,
    box: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """Return a picture, or what is in a ``box`` of it, as ``width`` x ``height``, whatever its own sides.

    Pillow resizes rows first and columns then, so of a picture of many short rows it would first make as many
    long ones: there the columns come first, and numbers can differ by one.
    """
    left, top, right, bottom = box or (0.0, 0.0, float(picture.width), float(picture.height))
    if width * (bottom - top) > max(MOST_BETWEEN, 4 * picture.width * picture.height):
        across = (0, top, picture.width, bottom)
        picture = picture.resize((picture.width, height), resampling, box=across)
        top, bottom = 0.0, float(height)
    return picture.resize((width, height), resampling, box=(left, top, right, bottom))


def middle(picture: Image.Image, width: int, height: int, resampling: Image.Resampling) -> Image.Image:
    """Return the middle of a picture whose shorter side is enlarged to that of the crop, the rest cut away.

    The same as torchvision's Resize and CenterCrop of a square, and open_clip's of other crops, a level apart
    at most where a sum is rounded, of a picture that they enlarge.
    """
    whole_width, whole_height = _whole(picture, width, height)
    left, top = round((whole_width - width) / 2), round((whole_height - height) / 2)
    columns = _span(picture.width, whole_width, left, width)
    rows = _span(picture.height, whole_height, top, height)
    near = picture.crop((columns.first, rows.first, columns.last, rows.last))
    # Rows first, as Pillow enlarges the whole; each sum is rounded, so the order is seen.
    wide = near.resize((width, near.height), resampling, box=(columns.start, 0, columns.stop, near.height))
    return wide.resize((width, height), resampling, box=(0, rows.start, width, rows.stop))


class _Span(NamedTuple):
    """What is needed of an axis: the pixels ``first`` to ``last``, and of these ``start`` to ``stop``."""

    first: int
    last: int
    start: float
    stop: float


def _span(size: int, whole: int, offset: int, count: int) -> _Span:
    """Return what ``count`` pixels from ``offset`` on take of an axis whose ``size`` becomes ``whole``."""
    scale = size / whole
    start, stop = offset * scale, min((offset + count) * scale, size)
    around = MOST_SUPPORT * max(scale, 1)
    first, last = max(0, math.floor(start - around)), min(size, math.ceil(stop + around))
    return _Span(first=first, last=last, start=start - first, stop=min(stop - first, last - first))


def is_thin(picture: Image.Image) -> bool:
    """Say whether a picture's sides are so far apart that its crop is to be made alone."""
    return max(picture.size) > THIN * min(picture.size)


def less_thin(picture: Image.Image) -> Image.Image:
    """Return a picture, of a thin one its middle, the longer side at most 16 times the shorter."""
    long = THIN * min(picture.size)
    width, height = min(picture.width, long), min(picture.height, long)
    if picture.size == (width, height):
        return picture
    left, top = (picture.width - width) // 2, (picture.height - height) // 2
    return picture.crop((left, top, left + width, top + height))


def _whole(picture: Image.Image, width: int, height: int) -> tuple[int, int]:
    """Return the sides of a picture that is resized, but not cut."""
    if width == height:  # as torchvision rounds
        short = min(picture.size)
        return int(width * picture.width / short), int(height * picture.height / short)
    ratio = min(picture.width / width, picture.height / height)
    return round(picture.width / ratio), round(picture.height / ratio)
