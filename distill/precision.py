"""What a student computes in: ``train.precision`` on a device."""

from __future__ import annotations

import time
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F

from cache.runtime.devices import cpu_gains_from_bfloat16, has_bfloat16
from cache.runtime.errors import UserError


def amp_dtype_of(precision: str, device: torch.device) -> torch.dtype | None:
    """Return what ``train.precision`` computes in on a device; None is float32 throughout.

    UserError if it is float16 on the CPU, where a gradient scaler has no place.
    """
    if precision == "auto" and device.type == "cuda":
        return torch.bfloat16 if has_bfloat16(device) else torch.float16
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


def slow_bfloat16(precision: str, device: torch.device) -> str:
    """Return one line about bfloat16 where it is slower than float32, as measured here; '' elsewhere."""
    if precision != "bfloat16" or device.type != "cpu":
        return ""
    ratio = min(_convolution_seconds(torch.bfloat16) / _convolution_seconds(torch.float32) for _ in range(2))
    if ratio < 1.5:
        return ""
    return (
        f"train.precision is bfloat16, in which this processor takes {ratio:.1f} times as long for a "
        "convolution as in float32: train.precision=auto takes the faster"
    )


def _convolution_seconds(dtype: torch.dtype) -> float:
    """Return how long a convolution and its gradients take, after a first one, a few milliseconds each."""
    images = torch.ones(8, 64, 28, 28, dtype=dtype)
    weights = torch.ones(64, 64, 3, 3, dtype=dtype, requires_grad=True)
    for _ in range(2):
        began = time.perf_counter()
        F.conv2d(images, weights, padding=1).sum().backward()
    return time.perf_counter() - began
