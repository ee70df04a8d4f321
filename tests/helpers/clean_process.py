"""Runs code in a process that has the libraries and nothing of ours, as whoever loads a model elsewhere does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

# Beside a CPU torch the wheel of torchvision declares operators that are not there; users' own are a pair.
BEFORE = """
import importlib, sys
class Ours:
    def find_spec(self, name, *more):
        if name.partition('.')[0] in ('distill', 'cache', 'cli'):
            raise ModuleNotFoundError(f'{name} is ours')
sys.meta_path.insert(0, Ours())
import torch
try:
    import torchvision
except RuntimeError:
    library = torch.library.Library('torchvision', 'FRAGMENT')
    for name in ('nms', 'qnms'):
        library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
exec(compile(sys.stdin.read(), 'printed', 'exec'))
"""


def run_clean(code: str, folder: Path) -> str:
    """Return what code prints that is run in a folder, with no network and none of our packages."""
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", BEFORE],
        input=code,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**env, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
