"""Whatever library loads a file with torch: numbers are loaded, and nothing in it is run."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

ALL, NUMBERS = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def for_this_process() -> None:
    """Load numbers alone from now on, in the processes that this one starts too."""
    os.environ.pop(ALL, None)
    os.environ[NUMBERS] = "1"


@contextmanager
def numbers_alone() -> Iterator[None]:
    """Load numbers alone within, and leave this process's own choice as it was; a decorator too."""
    before = {name: os.environ.get(name) for name in (ALL, NUMBERS)}
    for_this_process()
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
