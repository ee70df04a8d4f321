"""The short forms of the torture: nothing is lost, wrong or unkind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))


def stress(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/stress.py", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def test_the_torture_counts_what_faults_cost():
    from stress.faults import Outcome
    from stress.torture import table

    outcomes = {
        "kill": [Outcome(lost=["a row", "another"]), Outcome(struck=False)],
        "cut": [Outcome(unkind=["a traceback"], wrong=["a number"])],
    }
    assert table(outcomes) == [
        {"fault": "kill", "faults": 2, "struck": 1, "lost": 1, "wrong": 0, "unkind": 0},
        {"fault": "cut", "faults": 1, "struck": 1, "lost": 0, "wrong": 1, "unkind": 1},
        {"fault": "all", "faults": 3, "struck": 2, "lost": 1, "wrong": 1, "unkind": 1},
    ]


@pytest.mark.long
def test_faults_of_many_kinds_lose_nothing_and_nothing_is_read_wrong(tmp_path):
    out = tmp_path / "torture.json"
    ended = stress("torture", "--faults", 16, "--seed", 5, "--json", out)
    assert ended.returncode == 0, ended.stderr
    total = json.loads(out.read_text())["total"]
    assert total["faults"] == 16  # of as many kinds: other tests damage files and hold locks
    assert total["struck"] >= total["faults"] - 6
    assert (total["lost"], total["wrong"], total["unkind"]) == (0, 0, 0)


def test_what_is_not_there_to_be_fuzzed_or_to_fuzz_with_is_told_in_one_line(tmp_path):
    wrong = stress("fuzz", "--targets", "nothing", "--out", tmp_path)
    assert wrong.stderr.startswith("--targets: 'nothing' is not one; choose from manifest, ")
    assert (wrong.returncode, wrong.stderr.count("\n")) == (1, 1)
    if find_spec("atheris") is None:
        missing = stress("fuzz", "--targets", "npy", "--out", tmp_path)
        assert (missing.returncode, missing.stderr.count("\n")) == (1, 1)


@pytest.mark.long
def test_a_reader_that_is_fuzzed_for_seconds_gives_in_to_nothing(tmp_path):
    pytest.importorskip("atheris")
    ended = stress("fuzz", "--targets", "manifest", "npy", "--seconds", 5, "--out", tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert ended.stdout.count("nothing: Done") == 2
