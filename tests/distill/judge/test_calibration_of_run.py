"""A run's calibration: what its summary says of the same checkpoint, else fitted anew."""

from __future__ import annotations

import json
import shutil

import pytest

from distill.judge.calibration_of_run import judge_run


def test_what_the_summary_says_is_believed_of_the_same_checkpoint_alone(trained, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(trained / "run", run)
    summary = json.loads((run / "summary.json").read_text())
    fitted = summary["calibration"]["temperature"]
    summary["calibration"]["temperature"] = 0.5
    (run / "summary.json").write_text(json.dumps(summary))
    asked = {"splits": ["ood_test"], "device": "cpu"}

    def temperature(**how):
        results, calibration = judge_run(run, **asked, **how)
        assert [*results] == ["ood_test"]
        return calibration.temperature

    assert temperature() == 0.5
    assert temperature(cache_dir=trained / "cache") == pytest.approx(fitted, rel=1e-3)
    assert temperature(eval_size=48) != 0.5
    summary["epochs"] += 1  # the run went on, and has not ended yet
    (run / "summary.json").write_text(json.dumps(summary))
    assert temperature() == pytest.approx(fitted, rel=1e-3)
