"""Where random-resized crops lie: drawn here for training images, and for the views that a cache keeps."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Generator, Tensor

RATIO = (3 / 4, 4 / 3)
CROP_TRIES = 10
# Boxes that are kept lie on a grid so fine that it is below a pixel, whose fractions float32 holds exactly.
GRID = 4096


def crop_boxes(count: int, side: int, *, scale: tuple[float, float], generator: Generator) -> Tensor:
    """Return ``count`` boxes (left, top, width, height) of whole pixels as float32 [count, 4].

    The distribution is that of torchvision's RandomResizedCrop on a square image: area uniform,
    log of the ratio uniform, the first of ten tries that fits, else the whole image.
    """
    import torch

    shape = (CROP_TRIES, count)
    area = side**2 * (scale[0] + (scale[1] - scale[0]) * torch.rand(shape, generator=generator))
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * torch.rand(shape, generator=generator))
    width, height = torch.sqrt(area * ratio).round(), torch.sqrt(area / ratio).round()
    fits = (width > 0) & (width <= side) & (height > 0) & (height <= side)
    first = fits.int().argmax(dim=0, keepdim=True)
    has_fit = fits.any(dim=0)
    width = torch.where(has_fit, width.gather(0, first)[0], side)
    height = torch.where(has_fit, height.gather(0, first)[0], side)
    # minimum: the largest float32 below 1, times 257, rounds to 257.
    left = (torch.rand(count, generator=generator) * (side - width + 1)).floor().minimum(side - width)
    top = (torch.rand(count, generator=generator) * (side - height + 1)).floor().minimum(side - height)
    return torch.stack([left, top, width, height], dim=1)
