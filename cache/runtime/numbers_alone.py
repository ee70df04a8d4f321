"""Whatever library loads a file with torch: numbers are loaded, and nothing in it is run."""

from __future__ import annotations

import os

ALL, NUMBERS = "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "TORCH_FORCE_WEIGHTS_ONLY_LOAD"


def for_this_process() -> None:
    """Load numbers alone from now on, in the processes that this one starts too."""
    os.environ.pop(ALL, None)
    os.environ[NUMBERS] = "1"
