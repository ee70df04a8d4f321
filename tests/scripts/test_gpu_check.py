"""The check of a GPU: what its parts leave behind, and that each runs, in a small form, without one."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import torch
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import bench
import gpu_check
from benchmarks.gpu import COLUMNS
from gpu import report, wheels
from gpu.children import FAILED, OK, OVERRAN, SKIPPED, Outcome, run_part
from gpu.parts import MULTI, PARTS, TOTAL_S, chosen_parts
from gpu.work import Work, writer

QUICK = ("machine", "neighbours")
LONG = [pytest.param(name, marks=pytest.mark.long) for name in PARTS | MULTI if name not in QUICK]
WRITES = "import json, sys, time; json.dump([{'what': 'first'}], open(sys.argv[1], 'w')); "
ENDS = {
    OK: ("pass", 60),
    FAILED: ("sys.exit('no room left')", 60),
    OVERRAN: ("time.sleep(600)", 2),
}


@pytest.mark.parametrize("name", [*QUICK, *LONG])
def test_a_part_runs_in_its_small_form(name, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work = Work(device=torch.device("cpu"), small=True, scratch=tmp_path, keep=writer(tmp_path / "rows.json"))
    (PARTS | MULTI)[name].load()(work)
    rows = json.loads((tmp_path / "rows.json").read_text())
    assert rows
    shown = report.table_rows([Outcome(name=name, rows=rows)])
    assert all(row.keys() <= COLUMNS.keys() for row in shown), shown
    assert all(row["what"] for row in shown)
    assert bench.table_lines(COLUMNS, [{"machine": "here", "date": "2026-01-01", "rows": shown}])


@pytest.mark.parametrize("state", ENDS)
def test_a_part_that_ends_badly_is_recorded_with_what_it_had(state, tmp_path):
    ending, limit = ENDS[state]
    command = [sys.executable, "-c", WRITES + ending, str(tmp_path / "step.json")]
    outcome = run_part("step", command, limit=limit, folder=tmp_path)
    assert outcome.state == state
    assert outcome.rows == [{"what": "first"}]
    assert ("no room left" in outcome.said) == (state == FAILED)
    assert report.table_rows([outcome])[-1]["what"] == ("first" if state == OK else state)


def test_a_part_for_which_no_time_is_left_is_skipped(tmp_path):
    outcome = run_part("step", ["not run"], limit=-1, folder=tmp_path)
    assert (outcome.state, outcome.rows) == (SKIPPED, [])


def test_the_whole_has_eight_minutes_and_two_processes_come_where_asked_for():
    assert TOTAL_S < 480
    assert max(part.limit for part in (PARTS | MULTI).values()) < TOTAL_S / 2
    assert "several" not in chosen_parts(multi=False)
    assert {*chosen_parts(multi=True)} == {*PARTS, "several"}


def test_goals_are_said_and_a_result_is_kept_under_a_new_machines_name(tmp_path):
    rows = [
        {"what": "GPU 0", "said": "NVIDIA H200, 141 GB", "card": "NVIDIA H200"},
        {"what": "software", "said": "torch 2.6", "driver": "570.1", "versions": {"torch": "2.6"}},
    ]
    step = {"what": "resnet18", "time ratio": 1.2, "goal": "at most 1.05 of plain", "met": "no"}
    outcomes = [Outcome(name="machine", rows=rows), Outcome(name="step", rows=[step])]
    result = report.written(tmp_path, outcomes, "bash scripts/gpu_check.sh")
    assert json.loads((tmp_path / "gpu_check.json").read_text()) == result
    assert (result["card"], result["driver"]) == ("NVIDIA H200", "570.1")
    assert report.goals(result["rows"]) == ([], ["step: resnet18 (at most 1.05 of plain)"])
    folder = shutil.copytree(bench.RESULTS, tmp_path / "kept", ignore=shutil.ignore_patterns("*.py"))
    gpu_check.keep_in(folder, result, "H200 of ours")
    page = bench.page(folder)
    assert "- **H200 of ours**: NVIDIA H200, 141 GB; torch 2.6" in page
    assert f"| H200 of ours, {result['date']} | step | resnet18 |" in page
    assert "still to be run" not in page


def test_what_is_missing_is_named_with_what_packages_need():
    assert wheels.missing(["pytest", "No_Such.Package"]) == ["no-such-package"]
    assert wheels.missing(wheels.NEEDED) == []
    assert {"ftfy", "open-clip-torch", "faiss-cpu"} <= {*wheels.listing().split()}


@pytest.mark.parametrize(
    "words", [["--part", "nope"], ["--keep-from", "x.json"], ["--keep", "X", "--device", "cpu"]]
)
def test_words_that_do_not_fit_are_a_usage_error(words):
    with pytest.raises(SystemExit) as left:
        gpu_check.main(words)
    assert left.value.code == 2


def test_an_earlier_result_that_is_none_is_told_in_one_line(tmp_path):
    for content in ("{", '{"rows": []}'):
        (tmp_path / "x.json").write_text(content)
        with pytest.raises(
            SystemExit, match=r"x.json is no result of this check .*Fix: give a gpu_check.json"
        ):
            gpu_check.main(["--keep-from", str(tmp_path / "x.json"), "--keep", "X"])


@pytest.mark.long
def test_wheels_of_a_folder_are_importable_and_nothing_else_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setenv("PYTHONPATH", "")
    with zipfile.ZipFile(tmp_path / "no_such_thing-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("no_such_thing.py", "HERE = 1\n")
        about = "no_such_thing-1.0.dist-info"
        wheel.writestr(
            f"{about}/METADATA",
            "Metadata-Version: 2.1\nName: no-such-thing\nVersion: 1.0\nRequires-Dist: torch>=99\n",
        )
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    monkeypatch.setattr(wheels, "NEEDED", ("no_such_thing",))
    assert "missing: no-such-thing. WHEELS=DIR" in wheels.with_wheels("", tmp_path / "none")
    assert wheels.with_wheels(str(tmp_path), tmp_path / "packages") == ""
    assert importlib.util.find_spec("no_such_thing") is not None
    assert not [*(tmp_path / "packages").glob("torch*")]


@pytest.mark.long
def test_the_command_writes_json_and_a_table(tmp_path):
    script = ROOT / "scripts" / "gpu_check.sh"
    words = ["--device", "cpu", "--only", "machine", "--out", str(tmp_path / "out")]
    command = ["bash", str(script), *words]
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=tmp_path, env={"PATH": path, "PYTHON": sys.executable}
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out" / "GPU.md").read_text().count("\n") >= 4
    assert json.loads((tmp_path / "out" / "gpu_check.json").read_text())["versions"]["torch"]
