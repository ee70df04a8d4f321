"""What a bug report begins with."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner
from helpers.processes import distill

import cli
from cache.runtime import gpus
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
        "B/s written",
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


def test_a_card_is_a_screen_more_and_one_that_cannot_compute_is_a_line(monkeypatch):
    card = gpus.Card(
        name="NVIDIA H200", capability=(9, 0), bfloat16=True, free=138 * 10**9, total=141 * 10**9, peak=989
    )
    monkeypatch.setattr(gpus, "cards", lambda: [card])
    monkeypatch.setattr(gpus, "driver", lambda: "570.86.15")
    lines = {finding.name: finding for finding in doctor._gpus()}
    text = "NVIDIA H200, capability 9.0, 989 TFLOP/s dense at most, 138.0 GB of 141.0 GB free; precision auto is bfloat16"
    assert lines["GPU 0"].text == text
    assert "570.86.15" in lines["CUDA"].text
    assert "gpu_check.sh" in lines["GPU check"].text
    assert {"torch.compile", "several GPUs", "GPU computes"} <= lines.keys()


def test_a_driver_whose_card_torch_does_not_see_is_a_warning(monkeypatch):
    monkeypatch.setattr(gpus, "cards", list)
    monkeypatch.setattr(gpus, "driver", lambda: "470.1")
    finding = doctor._gpus()
    assert (finding.state, "470.1" in finding.text) == ("warning", True)
    monkeypatch.setattr(gpus, "driver", str)
    assert doctor._gpus().state == "ok"
