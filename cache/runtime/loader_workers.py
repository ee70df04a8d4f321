"""Worker processes that decode: how they hand images over, and how their end is noticed."""

from __future__ import annotations

import multiprocessing.queues
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.runtime.signals import held, take_signals

T = TypeVar("T")

GRACE_S = 10


def joined(items: Sequence[Tensor | str]) -> tuple[list[str], Tensor | None]:
    """Put the images of a batch, or why one cannot be read, together as a worker hands them over.

    In one tensor, for each takes a file handle on its way, and 1,024 of those are all that many systems give.
    """
    images = [item for item in items if isinstance(item, Tensor)]
    reasons = ["" if isinstance(item, Tensor) else item for item in items]
    return reasons, torch.stack(images) if images else None


def apart(batch: tuple[list[str], Tensor | None]) -> list[Tensor | str]:
    """Return what :func:`joined` put together."""
    reasons, images = batch
    rest = iter(() if images is None else images.unbind())
    return [reason or next(rest) for reason in reasons]


def batches(items: Dataset[Any], workers: int, **given: Any) -> Iterator[Any]:
    """Return the batches of a DataLoader whose workers :func:`begin_worker` begins; see :func:`begun`."""
    return begun(DataLoader(items, num_workers=workers, worker_init_fn=begin_worker, **given))


def begun(loader: DataLoader[T]) -> Iterator[T]:
    """Return a loader's batches, its workers started; a signal that comes meanwhile raises after that."""
    with held(), _without_main():
        return iter(loader)


@contextmanager
def _without_main() -> Iterator[None]:
    """Start processes that do not run the user's script again, as those do that are not forked.

    Nothing that they are given is of it. So a script needs no ``if __name__ == "__main__"``.
    """
    main = sys.modules["__main__"]
    own: dict[str, Any] = {name: vars(main)[name] for name in ("__file__", "__spec__") if name in vars(main)}
    main.__spec__ = None
    vars(main).pop("__file__", None)
    try:
        yield
    finally:
        vars(main).update(own)


def begin_worker(number: int) -> None:
    """Make a worker of a DataLoader leave when it cannot hand over a batch, as when file handles run out.

    A signal to the whole group, as a terminal's Ctrl-C or a cluster's SIGTERM is, leaves it to the parent,
    which saves and then sends its workers away; one that it forgets leaves a little later.

    Python's way is to print a traceback and to drop the batch, for which the parent then waits for ever. Of a
    parent that has left in mid-batch it prints a traceback too; that one says nothing.
    """
    del number
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _leave_later)
    take_signals()
    sys.excepthook = _say_unless_left
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_leave)  # type: ignore[attr-defined]


def _leave_later(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.alarm(GRACE_S)  # whose own way is to end the process


def _say_unless_left(cls: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(cls, error, trace)


def _leave(error: Exception, batch: object) -> None:
    del batch
    os._exit(getattr(error, "errno", None) or 1)
