"""Both stages by two real processes that torchrun starts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, make_photos
from helpers.caches import rows_of, stage_1_words
from helpers.processes import HELPERS, launch, torchrun
from helpers.runs import stage_2

import cli
from cache.maintain.verify import verify_cache
from cache.store.journal import Journal


def files_below(folder):
    return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())


def test_two_processes_make_the_rows_that_one_makes(photos, teacher_dir, tmp_path):
    (photos / "train" / "apple" / "broken.jpg").write_bytes(b"no image")
    (photos / "captions.jsonl").write_text('{"key": "apple/train_0.jpg", "caption": "a red apple"}\n')
    small = ("--batch-size", 2, "--workers", 0, "--device", "cpu")
    one, two = tmp_path / "one", tmp_path / "two"
    CliRunner().invoke(cli.main, stage_1_words(photos, one, teacher_dir, *small))
    done = subprocess.run(
        torchrun(*stage_1_words(photos, two, teacher_dir, *small, "--json")),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)  # said once
    assert (summary["rows"], list(summary["skipped"])) == (39, ["train/apple/broken.jpg"])
    assert rows_of(one) == rows_of(two)
    assert json.loads((one / "manifest.json").read_text()) == json.loads((two / "manifest.json").read_text())
    assert files_below(two / "journal") == [Path("main.jsonl")]
    assert all(not check.problem for check in verify_cache(two))


def test_what_is_finished_when_a_process_is_lost_is_kept_and_the_rest_is_redone(teacher_dir, tmp_path):
    photos, whole, lost = make_photos(tmp_path / "photos", train=20), tmp_path / "whole", tmp_path / "lost"
    words = ("--batch-size", "2", "--workers", "0", "--device", "cpu")
    CliRunner().invoke(cli.main, stage_1_words(photos, whole, teacher_dir, *words))
    rows = rows_of(whole)
    command = [*launch(2), str(HELPERS / "signalled_process.py"), "SIGKILL", "keys.h5", "2"]
    done = subprocess.run(
        [*command, *stage_1_words(photos, lost, teacher_dir, *words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0, done.stderr
    journal = Journal.load(lost)
    kept = sum(map(journal.rows, journal.splits))
    assert 0 < kept < sum(map(len, rows.values()))
    again = CliRunner().invoke(cli.main, [*stage_1_words(photos, lost, teacher_dir, *words), "--json"])
    assert json.loads(again.stdout)["new_rows"] == sum(map(len, rows.values())) - kept
    assert rows_of(lost) == rows
    assert all(not check.problem for check in verify_cache(lost))


# As a person types it; the tests' processes else are forked, see helpers/processes.py.
TYPED = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


# Shares of unlike size: 3 and 2. Without batch norms, which magnify rounding on these flat pictures.
@pytest.mark.parametrize("typed", [False, pytest.param(True, marks=pytest.mark.long)])
def test_two_processes_train_the_student_that_one_trains(photos, cached, tmp_path, typed):
    one, two = tmp_path / "one", tmp_path / "two"
    chosen = ("student.arch=timm:test_vit", "train.batch_size=5", "train.epochs=2")
    assert CliRunner().invoke(cli.main, stage_2(photos, cached.path, one, *chosen)).exit_code == 0
    words = stage_2(photos, cached.path, two, *chosen)
    command = [*TYPED, "-m", "cli", *words] if typed else torchrun(*words)
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == json.loads((one / "summary.json").read_text())["images"]
    first_files, second_files = (
        [path.name.partition(".tfevents")[0] for path in files_below(run)] for run in (one, two)
    )
    assert second_files == first_files
    for mine, theirs in zip(metrics_of(one), metrics_of(two), strict=True):
        assert theirs == pytest.approx(mine, rel=3e-4)
    first, second = (torch.load(run / "last.pt", weights_only=True)["student"] for run in (one, two))
    for name, weights in first.items():
        torch.testing.assert_close(second[name], weights, rtol=1e-3, atol=1e-4, msg=name)


def metrics_of(run):
    """A run's metrics without its speed."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name != "images_per_s"} for line in lines]


def test_a_batch_of_fewer_images_than_processes_is_refused_in_one_line(photos, cached, tmp_path):
    words = stage_2(photos, cached.path, tmp_path / "run", "student.arch=timm:test_vit", "train.batch_size=2")
    command = [*launch(3), "-m", "cli", *words]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode != 0
    assert "train.batch_size is 2, but 3 processes share a batch" in done.stderr
