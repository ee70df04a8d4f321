"""Stage 2 by real processes that torchrun starts: one batch in shares gives what the whole batch gives."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import torch
from conftest import ROOT, make_cache, write_image
from helpers.processes import HELPERS, launch, loses_second, stopped, torchrun
from helpers.runs import SMALL, numbers, same_run, words_of

from distill.data.batch import Share


def test_shares_are_next_to_each_other_and_are_the_whole():
    shares = [Share.of(7, rank, 3) for rank in range(3)]
    assert [i for share in shares for i in range(7)[share.rows]] == list(range(7))
    assert {share.stop - share.start for share in shares} == {2, 3}


@pytest.mark.parametrize("arch", ["timm:test_efficientnet", "timm:test_vit"])
def test_losses_gradients_and_batch_norms_are_those_of_the_whole_batch(arch):
    command = [*launch(3), str(HELPERS / "gradients_of_shares.py"), arch]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    of_shares = json.loads(done.stdout)
    assert of_shares["losses"][0] == pytest.approx(of_shares["losses"][1], rel=1e-12)
    assert of_shares["gradients"] < 1e-9
    assert of_shares["statistics"] < 1e-12
    assert of_shares["mixed"] == 0


def train(cached, photos, out, *settings):
    chosen = [word for setting in (*SMALL, *settings) for word in ("--set", setting)]
    words = ["train", str(cached.path), "--data", str(photos), "--out", str(out)]
    return [*words, "--recipe", "paper-resnet18", *chosen]


def test_an_error_that_one_process_meets_ends_all_in_one_line(photos, tmp_path):
    for image in (photos / "val").rglob("*.jpg"):
        image.write_bytes(b"no image")  # only the first process judges
    cached = make_cache(tmp_path / "cache", photos, captions=True)  # whose rows were made elsewhere
    command = torchrun(*train(cached, photos, tmp_path / "run", "train.epochs=2"))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "Error: no image of ood_test could be read" in done.stderr
    assert "raise UserError" not in done.stderr


def test_a_lost_process_is_named_in_one_line(cached, photos, tmp_path):
    words = train(cached, photos, tmp_path / "run", "train.epochs=500")
    done = subprocess.run(loses_second("forward", 400, words), cwd=ROOT, capture_output=True, text=True)
    assert done.returncode != 0
    assert "another process of this torchrun was lost" in done.stderr, done.stderr
    assert "distill/train/distributed.py" not in done.stderr


def test_a_sweep_is_not_for_torchrun(cached, photos, tmp_path):
    where = ["--cache", str(cached.path), "--data", str(photos), "--out", str(tmp_path / "runs")]
    command = torchrun("sweep", "losses", *where, "--together")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert "leave out torchrun" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_stopped_processes_leave_an_evaluation_together_and_go_on_to_the_same_numbers(photos, tmp_path):
    one, two = tmp_path / "whole", tmp_path / "cut"
    for i in range(5):  # a pool, which takes its places in the batches of both processes
        write_image(photos / "pool" / "plum" / f"{i}.jpg", (9, 9, 9), np.random.default_rng(i))
    cached = make_cache(tmp_path / "cache", photos, captions=True)
    settings = ("student.arch=timm:test_vit", "optim.accumulate=2", "optim.clip_norm=1", "optim.ema=0.9")
    subprocess.run(torchrun(*words_of("train", cached, photos, one, *settings)), cwd=ROOT, check=True)
    words = words_of("train", cached, photos, two, *settings)
    status, printed = stopped(launch(2), two, 1, words)
    assert status != 0
    assert f"stopped, and saved in {two / 'last.pt'}" in printed
    assert "was lost" not in printed
    assert len(numbers(two)) == 1
    assert numbers(one)[0]["pool_images"] == 5
    assert torch.load(two / "last.pt", weights_only=True)["position"]["epoch"] == 1
    subprocess.run([*torchrun(*words), "--resume"], cwd=ROOT, check=True)
    same_run(two, one)
