"""Code of a stranger, in the files that pass for data; where it is run, it leaves a file ``marker``."""

from __future__ import annotations

import os
from pathlib import Path

import torch


class Code:
    def __reduce__(self):
        return os.system, ("echo ran > marker",)


def pickled(path: Path) -> Path:
    torch.save({"state_dict": {"weight": Code()}, "more": torch.zeros(10**6)}, path)
    return path
