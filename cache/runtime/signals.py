"""Ctrl-C and SIGTERM as exceptions: what is open is closed, and the command leaves with 130 or 143."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from cache.runtime.errors import UserError

# Names the process that a command was started by, and must not outlive.
PARENT = "DISTILL_PARENT"
_PR_SET_PDEATHSIG = 1
_ASKING = (signal.SIGINT, signal.SIGTERM)
_CAN_BLOCK = hasattr(signal, "pthread_sigmask")  # not on Windows, which does not fork either


class Terminated(BaseException):
    """SIGTERM. Like KeyboardInterrupt no Exception, so that nothing takes it for an error of its own.

    ``met`` is the UserError that was on its way when it came, None for none. (``__context__`` does not tell:
    an ExitStack that is being closed takes it away.)
    """

    met: UserError | None = None


class _MainThread:
    """Where handlers run: how many :func:`held` blocks it is in, and what they are to raise."""

    holds = 0
    waiting: BaseException | None = None


@contextmanager
def held() -> Iterator[None]:
    """Let what :func:`raise_soon` is given wait for the end of the block, in which processes are started.

    Raised in one of fork's hooks it would be printed and lost, and raised before its parent knows a process
    it would leave an orphan. The processes take no signal before they :func:`take_signals`.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    _MainThread.holds += 1
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ASKING) if _CAN_BLOCK else None
    try:
        yield
    finally:
        if before is not None:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _MainThread.holds -= 1
        error, _MainThread.waiting = _MainThread.waiting, None
        if error is not None:
            raise error


def take_signals() -> None:
    """Take signals in a process that was started in :func:`held`."""
    if _CAN_BLOCK:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _ASKING)


def raise_soon(error: BaseException) -> None:
    """Raise ``error``, within :func:`held` at its end; for handlers of signals."""
    if not _MainThread.holds:
        raise error
    _MainThread.waiting = error


@contextmanager
def terminating() -> Iterator[None]:
    """Raise :class:`Terminated` in the main thread when SIGTERM comes."""
    process = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() != process:  # a worker, forked a moment ago: it has nothing to close, nor to say
            os._exit(128 + number)
        # Once: what comes while the files are being closed, and while it is said why, must not stop that.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ended = Terminated()
        ended.met = next((one for one in _on_its_way() if isinstance(one, UserError)), None)
        raise_soon(ended)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _on_its_way() -> Iterator[BaseException]:
    """Yield the exceptions that are being handled, from the innermost."""
    error = sys.exc_info()[1]
    while error is not None:
        yield error
        error = error.__context__


def stay_until_said() -> None:
    """Take no SIGTERM any more, for what is wrong is about to be said; to be used in :func:`terminating`."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, signal.SIG_IGN)


def end_with_parent() -> None:
    """Ask the kernel for a SIGTERM when the process that started this one is gone, even by SIGKILL.

    Only where that process said so in the environment; Linux alone can do it.
    """
    parent = os.environ.pop(PARENT, "")
    if not parent or not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != int(parent):  # it went before we asked
        raise Terminated
