"""What a bug report begins with."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner
from helpers.processes import distill

import cli
from distill import doctor


@pytest.fixture(scope="module")
def report():
    """What the command prints, as a user runs it."""
    return subprocess.run(distill("doctor"), capture_output=True, text=True)


def test_the_doctor_fits_a_screen_and_runs_both_stages(report):
    assert report.returncode == 0, report.stderr
    lines = report.stdout.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= 100
    for words in (
        "Python 3.",
        "torch 2.",
        "FAISS",
        "libjpeg",
        "GB free",
        "MB/s",
        "200 drawn images cached, two steps trained",
    ):
        assert words in " ".join(report.stdout.split())


def test_a_part_that_is_broken_is_a_line_and_no_traceback(tmp_path, monkeypatch):
    def broken():
        raise RuntimeError("operator\nnot found")

    monkeypatch.setattr(doctor, "_both_stages", broken)
    monkeypatch.setattr(doctor, "LEAST_FREE", 1e18)
    ended = CliRunner().invoke(cli.main, ["doctor", "--folder", str(tmp_path), "--json"])
    lines = {line["name"]: line for line in json.loads(ended.stdout)}
    assert ended.exit_code == 1
    assert lines["both stages"]["state"] == "failed"
    assert lines["both stages"]["text"] == "RuntimeError: operator not found"
    assert lines["disk"]["state"] == "warning"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path):
    ended = CliRunner().invoke(cli.main, ["doctor", "--folder", str(tmp_path / "nothing")])
    assert ended.exit_code == 2
