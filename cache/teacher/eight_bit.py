"""A teacher's preprocessing in two halves: pixels in the workers that decode, numbers on the device.

A picture of 224 px is 602,112 bytes as float32, and 150,528 as the pixels that these are computed from: so
much less goes through the workers' pipes, shared memory and the bus, and the workers, beside a GPU the
bottleneck, only decode and resize. The rest is the same function of every pixel's value, and so a table of
256 numbers a channel, which the preprocessing itself fills on the CPU: the same bits on every device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cache.runtime.torchvision_compat import torchvision
from cache.teacher.any_shape import AnyShape

TO_TENSOR = ("ToTensor", "MaybeToTensor")


@dataclass(frozen=True, kw_only=True, eq=False)
class EightBit:
    """``pixels`` takes a picture to uint8 [3, H, W]; ``table_3V`` float32 [3, 256] is what each becomes."""

    pixels: Callable[[Any], Tensor]
    table_3V: Tensor

    def numbers(self, pixels_B3HW: Tensor, dtype: torch.dtype) -> Tensor:
        """Return what the whole preprocessing gives of uint8 pixels, in ``dtype``, where they are."""
        table = _moved(self.table_3V, pixels_B3HW.device, dtype)
        channels = zip(table, pixels_B3HW.unbind(1), strict=True)
        # Not as bytes: those would be a mask.
        return torch.stack([values[pixels.int()] for values, pixels in channels], dim=1)


def eight_bit(transform: AnyShape) -> EightBit | None:
    """Return a preprocessing's two halves; None where it does not end in ToTensor and Normalize."""
    steps = list(getattr(transform.then, "transforms", ()))
    names = [type(step).__name__ for step in steps[-2:]]
    if len(names) < 2 or names[0] not in TO_TENSOR or names[1] != "Normalize":
        return None
    compose = torchvision.transforms.Compose
    values = np.arange(256, dtype=np.uint8)[None, :, None].repeat(3, axis=2)
    table_31V = compose(steps[-2:])(Image.fromarray(values))
    pixels = replace(transform, then=compose([*steps[:-2], torchvision.transforms.PILToTensor()]))
    return EightBit(pixels=pixels, table_3V=table_31V[:, 0].contiguous())


@lru_cache
def _moved(table: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a table on a device; made once, because a GPU waits for the copy."""
    return table.to(device, dtype)
