"""Tensors from a worker to its parent beside ``/dev/shm``, of which a container has 64 MB.

Torch lays each into a file of ``/dev/shm``; one batch of photos may be larger than all of it. A memfd lies in
memory that has no size of its own: what the machine or the container's group has is what there is.
"""

from __future__ import annotations

import mmap
import os
import sys
from multiprocessing import reduction
from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import reduce_tensor


def hand_over_in_memory() -> None:
    """Let this process send tensors in memfds; where the system has none (only Linux does) as torch does."""
    if not sys.platform.startswith("linux"):
        return
    try:
        os.close(os.memfd_create("distill"))
    except OSError:  # an old kernel, or a sandbox that forbids it
        return
    reduction.register(Tensor, _reduced)


def _reduced(tensor: Tensor) -> Any:
    """Return how a tensor is made again where it is received, as pickle wants it."""
    if tensor.device.type != "cpu" or tensor.layout != torch.strided or not tensor.numel():
        return reduce_tensor(tensor)  # type: ignore[no-untyped-call]
    file = os.memfd_create("distill")
    try:
        os.ftruncate(file, tensor.nbytes)
        _mapped(file, tensor.dtype, tensor.shape).copy_(tensor.detach())
        return _received, (reduction.DupFd(file), tensor.dtype, tensor.shape)
    finally:
        os.close(file)


def _received(handle: Any, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    file = handle.detach()
    try:
        return _mapped(file, dtype, shape)
    finally:
        os.close(file)


def _mapped(file: int, dtype: torch.dtype, shape: torch.Size) -> Tensor:
    """Return a file as a tensor, which keeps its pages mapped; the handle is not needed any more."""
    pages = mmap.mmap(file, shape.numel() * dtype.itemsize)
    return torch.frombuffer(pages, dtype=dtype).view(shape)
