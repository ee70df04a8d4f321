from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT
from safetensors import safe_open


@pytest.mark.long
def test_the_same_seed_trains_the_same_trunk_and_another_seed_another(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        words = ["--out", tmp_path / name, "--steps", 1, "--per-class", 1, "--seed", seed]
        script = [sys.executable, ROOT / "scripts" / "train_demo_trunk.py"]
        told = subprocess.run(
            [*script, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "all three words right" in told.stdout
    one, two, three = (read(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two != three


def read(path):
    """What a file of weights holds; the order of its metadata is nobody's."""
    with safe_open(str(path), framework="np") as file:
        tensors = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
        return file.metadata(), tensors
