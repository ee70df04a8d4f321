"""SIGTERM and Ctrl-C as a request: what runs goes on to a place where it can save, and leaves."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType

from cache.runtime.signals import raise_soon


class Stopped(Exception):
    """A signal stopped the run; its checkpoint is written. ``signal_number`` says which."""

    def __init__(
        self, signal_number: int, where: str, *, again: str = "the same command and --resume"
    ) -> None:
        super().__init__(f"stopped, and saved in {where}; go on with {again}.")
        self.signal_number = signal_number


class LeftAtOnce(BaseException):
    """A signal came in :meth:`Stop.at_once`. Like KeyboardInterrupt no Exception: nobody's own error."""


@dataclass(kw_only=True)
class Stop:
    """Which signal asked to stop; 0 for none."""

    signal_number: int = 0
    _at_once: bool = False
    _process: int = field(default_factory=os.getpid)

    def ask(self, number: int, frame: FrameType | None) -> None:
        """Take a signal; the handler of :func:`listening`."""
        del frame
        self.signal_number = number
        # A worker that has just been forked has this handler too: it is the parent that sends it away.
        if self._at_once and os.getpid() == self._process:
            self._at_once = False  # once: what comes while things are closed must not stop that
            raise_soon(LeftAtOnce())

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Within, a signal raises :class:`LeftAtOnce`: for long work that saves nothing and can be redone."""
        self._at_once = True
        try:
            if self.signal_number:
                raise LeftAtOnce
            yield
        finally:
            self._at_once = False


@contextmanager
def listening() -> Iterator[Stop]:
    """Turn SIGTERM and Ctrl-C into a request to stop after the step."""
    stop = Stop()
    # Only the main thread may set handlers; elsewhere a run cannot be signalled.
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
