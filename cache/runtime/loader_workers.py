"""Worker processes that decode: how they hand images over, and how their end is noticed."""

from __future__ import annotations

import errno
import multiprocessing
import multiprocessing.queues
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from types import FrameType, TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.runtime.signals import held, take_signals
from cache.runtime.tensor_handover import hand_over_in_memory

GRACE_S = 10
# At least what a loader's queues and events take, a page of memory each.
LOCKS, LOCKS_EACH = 8, 8


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


def batches(items: Dataset[Any], workers: int, *, ahead: int = 2, **given: Any) -> Iterator[Any]:
    """Return the batches of a DataLoader, its workers started; each is ``ahead`` batches ahead.

    A signal that comes meanwhile raises after that. Where the system lets no workers start all is read here,
    which changes no number, and a line says so once.
    """
    workers = workers if workers and _can_start(workers) else 0
    if workers and not isinstance(sys.unraisablehook, _UnlessEnded):
        sys.unraisablehook = _UnlessEnded(sys.unraisablehook)
    begun: dict[str, Any] = {"worker_init_fn": begin_worker, "prefetch_factor": ahead} if workers else {}
    loader: DataLoader[Any] = DataLoader(items, num_workers=workers, **begun, **given)
    with held(), _without_main():
        return iter(loader)


@cache
def _can_start(workers: int) -> bool:
    """Say whether workers can be started: what they wait for each other by lies in ``/dev/shm``."""
    try:
        locks = [multiprocessing.Lock() for _ in range(LOCKS + LOCKS_EACH * workers)]
        del locks
    except OSError as error:  # of rights, of room, or ENOSYS where there is no /dev/shm at all
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return True  # too few handles are told by those who need more of them
        sys.stderr.write(
            f"warning: /dev/shm cannot be used ({error.strerror}), so pictures are decoded in one process: "
            "mount it writable (of a container --shm-size).\n"
        )
        return False
    return True


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
    hand_over_in_memory()
    sys.excepthook = _say_unless_left
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_leave)  # type: ignore[attr-defined]


def _leave_later(number: int, frame: FrameType | None) -> None:
    del number, frame
    signal.alarm(GRACE_S)  # whose own way is to end the process


def _say_unless_left(cls: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not isinstance(error, (ConnectionError, EOFError)):
        sys.__excepthook__(cls, error, trace)


@dataclass(frozen=True)
class _UnlessEnded:
    """Says nothing of a worker's end that is noticed while a loader is being put away: it was told, or is.

    ``otherwise`` is what says the rest, as it did before: it may be somebody else's.
    """

    otherwise: Callable[[Any], object]

    def __call__(self, what: Any) -> None:
        if not (isinstance(what.exc_value, RuntimeError) and "DataLoader worker" in str(what.exc_value)):
            self.otherwise(what)


def _leave(error: Exception, batch: object) -> None:
    del batch
    os._exit(getattr(error, "errno", None) or 1)
