"""What computes a row, and may change its last bits."""

from __future__ import annotations

import platform
from functools import cache
from importlib.metadata import version
from typing import Any

_NAMES = (
    *("distill", "torch", "open_clip_torch", "transformers", "tokenizers", "sentencepiece"),
    *("faiss-cpu", "h5py", "numpy", "pillow", "webdataset"),
)


@cache
def versions() -> dict[str, str]:
    """Return the version of Python and of every package that is installed."""
    there = {"python": platform.python_version()}
    for name in _NAMES:
        try:
            there[name] = version(name)
        except ModuleNotFoundError:  # an extra, faiss-gpu for faiss-cpu, distill run from its folder
            continue
    return there


def made_with(batch_size: int, device: object) -> dict[str, Any]:
    """Return what the line of a row group or column remembers of the machine that made it."""
    return {"batch_size": batch_size, "device": str(device), "versions": versions()}
