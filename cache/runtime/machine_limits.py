"""What one command may ask of a machine. Anything more is a slip, or a file that somebody else wrote.

No torch here: the command line reads these when it starts.
"""

from __future__ import annotations

import os

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
    """Return how many processor cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def most_processes() -> int:
    """Return how many processes one command may start on this machine."""
    return max(16, 4 * cores())


def workers_here(asked: int) -> int:
    """Return how many processes decode on this machine where so many were asked for.

    They change no number, so a run that a larger machine trained is judged on a smaller one as it is.
    """
    return min(asked, most_processes())


def memory_here(asked: int) -> int:
    """Return how many bytes may be kept on this machine where so many were asked for: at most half of it."""
    try:
        return min(asked, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
    except (ValueError, OSError):  # a system that does not say
        return asked
