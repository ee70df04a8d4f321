"""SIGTERM and Ctrl-C as a request: what runs goes on to a place where it can save, and leaves."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


class Stopped(Exception):
    """A signal stopped the run; its checkpoint is written. ``signal_number`` says which."""

    def __init__(
        self, signal_number: int, where: str, *, again: str = "the same command and --resume"
    ) -> None:
        super().__init__(f"stopped, and saved in {where}; go on with {again}.")
        self.signal_number = signal_number


@dataclass(kw_only=True)
class Stop:
    """Which signal asked to stop; 0 for none."""

    signal_number: int = 0


@contextmanager
def listening() -> Iterator[Stop]:
    """Turn SIGTERM and Ctrl-C into a request to stop after the step."""
    stop = Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        stop.signal_number = number

    # Only the main thread may set handlers; elsewhere a run cannot be signalled.
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
