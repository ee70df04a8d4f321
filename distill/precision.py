"""What a student computes in: ``train.precision`` on a device."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from cache.runtime.devices import cpu_gains_from_bfloat16
from cache.runtime.errors import UserError


def amp_dtype_of(precision: str, device: torch.device) -> torch.dtype | None:
    """Return what ``train.precision`` computes in on a device; None is float32 throughout.

    UserError if it is float16 on the CPU, where a gradient scaler has no place.
    """
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    if precision == "auto":
        return torch.bfloat16 if device.type == "cpu" and cpu_gains_from_bfloat16() else None
    if precision == "float16" and device.type == "cpu":
        raise UserError("train.precision is float16 on the CPU", fix="use float32 or bfloat16 there.")
    return {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}[precision]


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Return the context that a student computes in, in ``dtype``."""
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def amp_dtype_of_trained(precision: str, device: torch.device) -> torch.dtype | None:
    """Return what a trained student is judged in: its own, for training's very numbers.

    One that was trained in float16 on a GPU is judged in float32 on the CPU.
    """
    return None if precision == "float16" and device.type == "cpu" else amp_dtype_of(precision, device)
