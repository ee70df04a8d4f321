"""The versions of what computes a row."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version

_NAMES = ("distill", "torch", "open_clip_torch", "faiss-cpu", "h5py", "numpy", "pillow", "webdataset")


@cache
def versions() -> dict[str, str]:
    """Return the version of Python and of every package that is installed."""
    there = {"python": platform.python_version()}
    for name in _NAMES:
        try:
            there[name] = version(name)
        except ModuleNotFoundError:  # faiss-gpu instead of faiss-cpu, or distill run from its folder
            continue
    return there
