from __future__ import annotations

import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.long
def test_the_same_seed_trains_the_same_trunk_and_another_seed_another(tmp_path):
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        words = ["--out", tmp_path / name, "--steps", 1, "--per-class", 1, "--seed", seed]
        script = [sys.executable, ROOT / "scripts" / "train_demo_trunk.py"]
        told = subprocess.run(
            [*script, *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True
        )
        assert "all three words right" in told.stdout
    one, two, three = ((tmp_path / name).read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
