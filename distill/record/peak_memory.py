"""The most memory that a process has held; apart, because what is measured may not load torch."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path


def peak_resident(pid: int | str = "self") -> int:
    """Return the most bytes that a process has held resident.

    On Linux not getrusage, whose number a process inherits from the one that started it.
    """
    with suppress(OSError):  # where /proc is hidden, or, in some sandboxes, says less
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        for most in (int(line.split()[1]) for line in lines if line.startswith("VmHWM:")):
            return most * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
