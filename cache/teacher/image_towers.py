"""What image towers of several libraries have in common: numbers, layout, patch tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from cache.runtime.devices import has_bfloat16
from cache.teacher.teacher import PatchTokens


def chosen_precision(wanted: str, device: torch.device) -> str:
    """Return the precision that ``auto`` means on a device; any other as it is.

    Float32 on the CPU, bfloat16 on CUDA devices that have it, else float16.
    """
    if wanted != "auto" or device.type != "cuda":
        return "float32" if wanted == "auto" else wanted
    return "bfloat16" if has_bfloat16(device) else "float16"


def in_its_layout(tower: nn.Module) -> bool:
    """Put a convolutional image tower in the layout that it is fast in, and say whether it is one.

    A ViT gains nothing.
    """
    if sum(isinstance(module, nn.Conv2d) for module in tower.modules()) < 3:
        return False
    tower.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return True


def patch_tokens_of_timm(trunk: Any) -> PatchTokens | None:
    """Return where the patches' embeddings of a ViT of timm's come from; None of any other network.

    Each goes through what its pooled token goes through after the pooling; learnt pooling has no such.
    """
    if not hasattr(trunk, "num_prefix_tokens") or getattr(trunk, "attn_pool", None) is not None:
        return None
    first = trunk.num_prefix_tokens

    def project(tokens: Tensor) -> Tensor:
        projected: Tensor = trunk.head(trunk.fc_norm(tokens[:, first:]))
        return projected

    return trunk.norm, project
