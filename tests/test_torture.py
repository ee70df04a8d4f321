"""The torture script's short form: faults of several kinds, and nothing lost, wrong or unkind."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT


@pytest.mark.slow
def test_faults_of_many_kinds_lose_nothing_and_nothing_is_read_wrong(tmp_path):
    command = [sys.executable, "scripts/torture.py", "--seed", "5", "--out", str(tmp_path / "torture.json")]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "torture.json").read_text())
    assert found["total"]["faults"] >= 26  # six kinds need a file system that can be mounted
    assert found["total"]["struck"] >= found["total"]["faults"] - 6
    assert (found["total"]["lost"], found["total"]["wrong"], found["total"]["unkind"]) == (0, 0, 0)
