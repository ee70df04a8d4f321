"""What torchrun tells a process by its environment; a process by itself is the first and only one."""

from __future__ import annotations

import os


def world_size() -> int:
    """Return how many processes there are."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Return this process's number among all."""
    return int(os.environ.get("RANK", "0"))


def speaks() -> bool:
    """Say whether this process is the one that talks to people."""
    return rank() == 0


def local_rank() -> int | None:
    """Return this process's number on its machine, None without torchrun."""
    return int(os.environ["LOCAL_RANK"]) if "LOCAL_RANK" in os.environ else None


def processes_here() -> int:
    """Return how many of the processes are on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
