"""The benchmark scripts at the least size: that they run and write the ratios, not what these are."""

from __future__ import annotations

import json
import math
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT

STEP = ["--batch-size", 2, "--image-size", 32, "--steps", 1, "--classes", 2]
# What is in capitals becomes a path.
PHOTOS = ["--data", "PHOTOS", "--model", "TEACHER"]
SCRIPTS: dict[str, tuple[list[object], list[str]]] = {
    "bench_allocator": (["--", *STEP, "--embed-dim", 8, "--rounds", 1], ["speedup_median"]),
    "bench_ablations": (
        [*PHOTOS, "--images", 12, "--counts", "1", "--image-size", 32, "--epochs", 1, "--batch-size", 12],
        [f"counts.{n}.ratios.{way}" for n in "1" for way in ("separate runs", "trained together")],
    ),
    "bench_cache_features": (
        [*PHOTOS, "--images", 4, "--batch-size", 2, "--workers", 0, "--peak-tflops", 1],
        ["stage 1.ratio", "DataLoader to .npy.ratio", "stage_1_beside_loader", "share_of_peak"],
    ),
    "bench_cache_size": (
        ["--rows", "20", "--embed-dim", 8],
        [f"rows.20.{f} {d}.ratio" for f in ("hdf5", "webdataset") for d in ("float16", "float32")],
    ),
    "bench_input": (
        ["--data", "PHOTOS", "--image-size", 32, "--batch-size", 2, "--batches", 2, "--decoded", 3],
        ["ways.webdataset.ratio", "ways.raw in the cache.ratio", "decoders.Pillow, draft mode.ratio"],
    ),
    "bench_neighbours": (["--texts", "20", "--images", 10, "--embed-dim", 8], ["20.ratio"]),
    "bench_serve": (
        ["MODEL", "--images", "PHOTOS", "--requests", 4, "--clients", "1,2"],
        [f"clients.{n}.ratio" for n in (1, 2)],
    ),
    "bench_startup": (["--rows", 8, "--classes", 2, "--embed-dim", 8, "--image-size", 32], ["8.seconds"]),
    "bench_teacher_in_loop": (
        [*STEP, "--model", "TEACHER", "--warm-up", 1],
        ["ways.from the cache.ratio", "ways.teacher in the loop.ratio", "slower_than_cache"],
    ),
    "bench_train_step": ([*STEP, "--embed-dim", 8], ["whole step.ratio", "without augmentation.ratio"]),
    "bench_views": (
        [*PHOTOS, "--epochs", 1, "--views", 2, "--set", "loss.cap=0", "--set", "student.image_size=32"],
        ["table.scale 0.5.ood_cosine.mean", "table.scale 0.5, 2 views.ood_cosine.mean"],
    ),
}
PICTURES = {"bench_input": "input", "bench_ablations": "ablations", "bench_teacher_in_loop": "step"}


WRONG: list[tuple[str, list[object], int, str]] = [
    ("bench_ablations", ["--data", "PHOTOS", "--arch", "nope"], 1, "no student is called 'nope'"),
    ("bench_ablations", ["--data", "PHOTOS", "--counts", "1,40"], 2, "there are 16 ablations, not 40"),
    ("bench_allocator", ["--", "--arch", "nope"], 1, "no student is called 'nope'"),
    ("bench_cache_features", ["--data", "PHOTOS", "--model", "nope"], 1, "no teacher is called 'nope'"),
    ("bench_cache_size", ["--rows", "abc"], 2, "'abc' is not a whole number of at least 1"),
    ("bench_cache_size", ["--formats", "hdf5,foo"], 2, "'foo' is not one of hdf5, webdataset"),
    ("bench_input", ["--data", "nowhere"], 1, "the data folder nowhere does not exist"),
    ("bench_neighbours", ["--texts", "10,"], 2, "'' is not a whole number of at least 1"),
    ("bench_serve", ["nowhere", "--images", "PHOTOS", "--bare"], 1, "nowhere is not an exported model"),
    ("bench_startup", ["--arch", "nope"], 1, "no student is called 'nope'"),
    (
        "bench_startup",
        [*SCRIPTS["bench_startup"][0], "--image-size", 4],
        2,
        "'--image-size': 4 is not in the range x>=8",
    ),
    ("bench_teacher_in_loop", ["--model", "nope"], 1, "no teacher is called 'nope'"),
    ("bench_train_step", ["--rounds", 0], 2, "'0' is not a whole number of at least 1"),
    ("bench_train_step", ["--batch-size", 1], 2, "train.batch_size is 1"),
    ("bench_views", ["--scales", "0.5,2"], 2, "'2' is not a number above 0 and at most 1"),
    ("bench_views", ["--data", "nowhere", "--classes", 2], 1, "the data folder nowhere does not exist"),
    ("plot_benchmarks", ["--step", "README.md", "--out", "OUT"], 1, "README.md is not what bench_teacher"),
]


def run_script(name: str, arguments: Sequence[object]) -> subprocess.CompletedProcess[str]:
    # A script's own folder comes first on its path: this one's packages are to be found, not installed ones.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, f"scripts/{name}.py", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)


def looked_up(found: Any, path: str) -> Any:
    """The value at a path of keys, where a key may hold dots."""
    if not path:
        return found
    for key in found:
        if path == key or path.startswith(f"{key}."):
            return looked_up(found[key], path[len(key) + 1 :])
    raise KeyError(path)


def test_every_benchmark_script_is_tried():
    found = {path.stem for path in (ROOT / "scripts").glob("bench_*.py")}
    assert found - {"bench_parts"} == set(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_writes_its_ratios_with_hardware_and_versions(
    name: str, photos: Path, teacher_dir: Path, tmp_path: Path, request: pytest.FixtureRequest
):
    given, ratios = SCRIPTS[name]
    put = {"PHOTOS": photos, "TEACHER": f"local-dir:{teacher_dir}"}
    if "MODEL" in given:
        put["MODEL"] = request.getfixturevalue("plain")
    out = tmp_path / "found.json"
    done = run_script(name, ["--rounds", 1, "--out", out, *(put.get(word, word) for word in given)])
    assert done.returncode == 0, done.stderr
    found = json.loads(out.read_text())
    assert {"arguments", "date", "hardware", "versions"} <= found.keys()
    for path in ratios:
        assert math.isfinite(looked_up(found, path)), path
        assert looked_up(found, path) > 0, path
    if name in PICTURES:
        kind = PICTURES[name]
        done = run_script("plot_benchmarks", [f"--{kind}", out, "--out", tmp_path])
        assert done.returncode == 0, done.stderr
        assert (tmp_path / f"{kind}.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(("name", "given", "status", "said"), WRONG)
def test_wrong_input_is_one_line_and_the_right_status(
    name: str,
    given: list[object],
    status: int,
    said: str,
    photos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    put = {"PHOTOS": photos, "OUT": tmp_path}
    script = ROOT / "scripts" / f"{name}.py"
    monkeypatch.setattr(sys, "argv", [str(script), *(str(put.get(word, word)) for word in given)])
    monkeypatch.syspath_prepend(script.parent)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.chdir(ROOT)
    with pytest.raises(
        SystemExit
    ) as left:  # here, because a process of its own takes seconds to import torch
        runpy.run_path(str(script), run_name="__main__")
    assert left.value.code == status
    *usage, last = capsys.readouterr().err.splitlines()
    assert said in last
    assert not usage or usage[0].startswith("usage: ")  # argparse's


def test_a_measurement_that_crashes_is_one_line_that_says_what_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    monkeypatch.syspath_prepend(ROOT / "scripts")
    from bench_parts import fresh

    script = tmp_path / "bench_x.py"
    script.write_text("{}[3]\n")
    with pytest.raises(SystemExit) as left:
        fresh(script, [])
    assert left.value.code == 1
    assert capsys.readouterr().err == "Error: bench_x.py ended with status 1: KeyError: 3\n"
