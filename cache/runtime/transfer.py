"""Tensors and networks between the computer's memory and a GPU, without waiting; on the CPU plainly."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import TypeVar

import torch
from torch import Tensor, nn

from cache.runtime.errors import UserError, reason_of

Item = TypeVar("Item")


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on ``device``; a copy to CUDA is from pinned memory and is not waited for.

    To any other device it is: Apple's GPUs read memory that was freed before they came to a copy that nobody
    waited for (pytorch/pytorch#189690).
    """
    if device.type != "cuda":
        return tensor.to(device)
    if tensor.device.type == "cpu":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def put_on(network: nn.Module, device: torch.device, name: str) -> nn.Module:
    """Return a network that was loaded on the CPU, on the device: what fails here is not its weights' fault.

    UserError if the device has no room for it, or not its kind of numbers.
    """
    try:
        return network.to(device)
    except (RuntimeError, TypeError) as error:
        raise UserError(
            f"{name} could not be put on the device {device} ({reason_of(error)})",
            fix="free the device's memory, choose a smaller teacher, or use --device cpu.",
        ) from error


def moved_beside(tensor: Tensor, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a tensor on ``device`` in ``dtype``; a GPU copies it beside what it is computing.

    What is computed from it next on the current stream waits for the copy, and nobody else does.
    """
    if device.type != "cuda" or tensor.device.type != "cpu":
        return tensor.to(device, dtype)
    pinned, copies = tensor.to(dtype).pin_memory(), _copy_stream(device)
    with torch.cuda.stream(copies):
        moved = pinned.to(device, non_blocking=True)
    computes = torch.cuda.current_stream(device)
    computes.wait_stream(copies)
    moved.record_stream(computes)
    return moved


@lru_cache
def _copy_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def fetched_later(tensor: Tensor) -> Callable[[], Tensor]:
    """Begin a tensor's copy to the CPU, and return what waits for it; later work does not hold it up."""
    if tensor.device.type != "cuda":
        return tensor.cpu
    copy, done = tensor.to("cpu", non_blocking=True), torch.cuda.Event()
    done.record(torch.cuda.current_stream(tensor.device))

    def wait() -> Tensor:
        done.synchronize()
        return copy

    return wait


def one_behind(items: Iterable[Item]) -> Iterator[Item]:
    """Yield each item when the next is there: what an item has begun goes on meanwhile."""
    before: list[Item] = []
    for item in items:
        yield from before
        before = [item]
    yield from before
