"""What one command may ask of a machine. Anything more is a slip, or a file that somebody else wrote.

No torch here: the command line reads these when it starts.
"""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

# A config travels between machines, so what it may say does not depend on one.
WORKERS = 512
BATCH = 65_536
IMAGE_SIDE = 2048
PICTURE_PIXELS = 89_478_485  # Pillow's own limit: 1 GB of what is made of one on its way to RGB
# A rate is looked at for each of them before a run begins.
EPOCHS = 1_000_000
EPOCH_REPEATS = 1000
CONTEXT_TOKENS = 256
VIEWS = 1000
NEIGHBOURS = 65_536
THREADS = 1024
REQUESTS = 64
RUNS = 10_000


def cores() -> int:
    """Return how many processor cores this process may use: a container's share where that is less."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota, _, period = _group_file("cpu.max").partition(" ")
    share = _number(quota) / max(_number(period), 1)
    return max(1, min(allowed, math.ceil(share))) if share else allowed


def _group_file(*names: str) -> str:
    """Return what the first of some files of the control group says, '' where there is none."""
    for name in names:
        with suppress(OSError, UnicodeDecodeError):
            return Path("/sys/fs/cgroup", name).read_text(encoding="ascii").strip()
    return ""


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0


def most_processes() -> int:
    """Return how many processes one command may start on this machine."""
    return max(16, 4 * cores())


def workers_here(asked: int) -> int:
    """Return how many processes decode on this machine where so many were asked for.

    They change no number, so a run that a larger machine trained is judged on a smaller one as it is.
    """
    return min(asked, most_processes())


def memory_here(asked: int) -> int:
    """Return how many bytes may be kept here where so many were asked for: at most half of what there is.

    That is the machine's, or a container's limit where it is lower.
    """
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):  # a system that does not say
        return asked
    group = _number(_group_file("memory.max", "memory/memory.limit_in_bytes")) or machine
    return min(asked, machine // 2, group // 2)
