"""The short forms of the torture script and of the load run: nothing is lost, wrong or unkind, or left open."""

from __future__ import annotations

import json
import subprocess
import sys

from conftest import ROOT


def test_faults_of_many_kinds_lose_nothing_and_nothing_is_read_wrong(tmp_path):
    command = [
        sys.executable,
        "scripts/torture.py",
        "--faults",
        "16",
        "--seed",
        "5",
        "--out",
        str(tmp_path / "torture.json"),
    ]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads((tmp_path / "torture.json").read_text())
    assert found["total"]["faults"] == 16  # of as many kinds: other tests damage files and hold locks
    assert found["total"]["struck"] >= found["total"]["faults"] - 6
    assert (found["total"]["lost"], found["total"]["wrong"], found["total"]["unkind"]) == (0, 0, 0)


def test_the_load_run_measures_memory_and_open_files_of_both_stages(tmp_path):
    out = tmp_path / "load.json"
    command = [sys.executable, "scripts/load_run.py", "--images", "300", "--epochs", "1", "--out", str(out)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    assert out.with_suffix(".png").stat().st_size
    for stage in json.loads(out.read_text())["stages"].values():
        assert 0 < stage["peak_MB"] < 3000
        assert 0 < stage["handles_at_most"] < 200
