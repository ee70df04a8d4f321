"""In which numbers and in which layout a teacher's image tower computes."""

from __future__ import annotations

import torch
from torch import nn


def chosen_precision(wanted: str, device: torch.device) -> str:
    """Return the precision that ``auto`` means on a device; any other as it is.

    Float32 on the CPU, bfloat16 on CUDA devices that have it, else float16.
    """
    if wanted != "auto" or device.type != "cuda":
        return "float32" if wanted == "auto" else wanted
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def in_its_layout(tower: nn.Module) -> bool:
    """Put a convolutional image tower in the layout that it is fast in, and say whether it is one.

    A ViT gains nothing.
    """
    if sum(isinstance(module, nn.Conv2d) for module in tower.modules()) < 3:
        return False
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return True
