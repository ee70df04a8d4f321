"""The same command, seed and machine: the same bytes, however many workers and processes there are."""

from __future__ import annotations

from pathlib import Path

import torch
from click.testing import CliRunner
from conftest import make_cache

from cli import main

SMALL = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--epochs", "2"]


def distill(*words: object) -> None:
    ended = CliRunner().invoke(main, list(map(str, words)))
    assert ended.exit_code == 0, ended.output


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def state_of(run: Path) -> dict[str, torch.Tensor]:
    state = torch.load(run / "last.pt", weights_only=True)
    return {**state["student"], **{f"momentum {k}": v for k, v in enumerate(momenta(state["optimizer"]))}}


def momenta(optimizer: dict) -> list[torch.Tensor]:
    return [v for one in optimizer["state"].values() for v in one.values() if isinstance(v, torch.Tensor)]


def assert_same_state(one: Path, other: Path) -> None:
    mine, theirs = state_of(one), state_of(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_cache_is_the_same_bytes_whatever_workers_read_the_images(photos, teacher_dir, tmp_path):
    words = ["cache-features", photos, "--model", f"local-dir:{teacher_dir}", "--device", "cpu"]
    words += ["--views", 2, "--pixels", 40, "--rows-per-shard", 7, "--batch-size", 4]
    for workers in (0, 2):
        distill(*words, "--workers", workers, "--out", tmp_path / f"workers-{workers}")
    distill(*words, "--workers", 0, "--out", tmp_path / "again")
    assert files_of(tmp_path / "workers-0") == files_of(tmp_path / "again")
    assert files_of(tmp_path / "workers-0") == files_of(tmp_path / "workers-2")


def test_a_student_is_the_same_bits_whatever_workers_decode_and_however_many_train(photos, tmp_path):
    cache = make_cache(tmp_path / "cache", photos, captions=True).path
    place = ["--data", photos]
    for workers in (0, 2):
        more = ["--set", f"data.workers={workers}", "--set", "data.memory_mb=0"]
        distill("train", cache, *place, "--out", tmp_path / f"workers-{workers}", *SMALL, *more)
    assert_same_state(tmp_path / "workers-0", tmp_path / "workers-2")

    base = "student.arch = 'timm:test_resnet'\ntrain.epochs = 2\ntrain.device = 'cpu'\ndata.workers = 0\n"
    (tmp_path / "sweep.toml").write_text(f"recipe = 'smoke'\nseeds = [0, 1]\n[base]\n{base}")
    out = tmp_path / "jobs"
    distill("sweep", tmp_path / "sweep.toml", "--cache", cache, *place, "--out", out, "--jobs", 2)
    seed_0 = next(path.parent for path in out.glob("*/last.pt") if "seed=0" in path.parent.name)
    assert_same_state(tmp_path / "workers-0", seed_0)
