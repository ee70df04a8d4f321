"""Benchmarks: how their numbers are computed, that the page is what is kept, and that each runs at the least size."""

from __future__ import annotations

import importlib
import json
import math
import re
import sys
from datetime import date
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import bench
from benchmarks.turns import in_turn, median_ratios, medians
from cache.sources import remote_files

STEP = ["--batch-size", 2, "--image-size", 32, "--steps", 1, "--classes", 2, "--warm-up", 1]
# What is in capitals becomes a path; then the columns of ratios.
PHOTOS = ["--data", "PHOTOS", "--model", "TEACHER"]
SMALL = ["--image-size", 32, "--epochs", 1, "--batch-size", 12]
LEAST: dict[str, tuple[list[object], list[str]]] = {
    "ablations": ([*PHOTOS, "--images", 12, "--counts", 1, *SMALL], ["C / A", "C / B"]),
    "teacher_in_loop": ([*STEP, "--model", "TEACHER"], ["loop / cache"]),
    "train_step": ([*STEP, "--embed-dim", 8], ["time ratio", "ratio without augmentation"]),
    "step_options": ([*STEP, "--embed-dim", 8], ["time by plain", "by nothing added"]),
    "forward": (
        [*PHOTOS[2:], "--batch-size", 2, "--other-sizes", 1, "--seconds", 0.01, "--ways", "as it is"],
        ["images/s"],
    ),
    "input": (["--data", "PHOTOS", *SMALL[:2], "--batch-size", 2, "--batches", 2], ["beside the first"]),
    "sources": ([*PHOTOS, "--workers", 0], ["images/s", "beside the folder", "equal rows"]),
    "startup": (["--rows", 8, "--classes", 2, "--embed-dim", 8, *SMALL[:2]], ["first step after"]),
    "commands": (["--classes", 2, "--images", 8], ["processor time"]),
    "cache": (["--rows", 20, "--embed-dim", 8, "--before-rows", 0], ["by numpy.memmap's", "bytes a row"]),
    "growth": (["--photos", "PHOTOS", "--epochs", 1, "--changes", 1], ["rows", "new rows"]),
    "streaming": (
        ["--rows", 300, "--embed-dim", 8, "--batch-size", 32, "--rows-per-tar", 100],
        ["samples/s", "beside plain webdataset", "bytes a sample"],
    ),
    "allocator": ([*STEP, "--embed-dim", 8], ["speedup"]),
    "load": (["--images", 300, "--epochs", 1], ["images/s", "peak memory"]),
    "million": (["--folder", "NEW", "--samples", 900, "--per-tar", 100, "--kill-at", 0.1], ["seconds"]),
    "none": (
        ["--demo", "DEMO", "--teacher", "TEACHER", "--halves", 2, "--samples", 5],
        ["known", "images", "temperature"],
    ),
    "web": (["--models", "MODEL", "--photo", "PHOTO", "--repeats", 2], []),
    "serve": (["--model", "MODEL", "--images", "PHOTOS", "--requests", 4, "--clients", 1, 2], ["by bare"]),
}
# Those that take no time are run with every change.
QUICK: dict[str, tuple[list[object], list[str]]] = {
    "neighbours": (
        ["--texts", 20, 30, "--images", 10, "--embed-dim", 8, "--rows", 40, "--batch-size", 4],
        ["in the step", "kept", "torch / FAISS", "same"],
    ),
    "cache_features": (
        [*PHOTOS, "--images", 4, "--batch-size", 2, "--workers", 0],
        ["stage 1, time", "DataLoader, time", "decoding"],
    ),
}
WITHOUT_OPTIONS = {"gpu", "views", "episodes", "adapted", "exported", "several_teachers"}

WRONG: list[tuple[list[object], int, str]] = [
    (["nope"], 2, "invalid choice: 'nope'"),
    (["train_step", "--rounds", 0], 2, "'0' is not a whole number of at least 1"),
    (["train_step", "--arch", "nope"], 1, "no student is called 'nope'"),
    (["train_step", "--batch-size", 1], 2, "train.batch_size is 1"),
    (["cache", "--rows", "abc"], 2, "invalid int value: 'abc'"),
    (["cache", "--rows", 20, "--before", "nope"], 1, "--before nope cannot be checked out from"),
    (["cache_features", "--data", "PHOTOS", "--model", "nope"], 1, "no teacher is called 'nope'"),
    (["ablations", "--data", "PHOTOS", "--counts", 1, 40], 2, "give none above 16"),
    (["input", "--data", "nowhere"], 1, "the data folder nowhere does not exist"),
    (["serve", "--model", "nowhere", "--images", "PHOTOS"], 1, "nowhere is not an exported model"),
    (["neighbours", "--keep", "nowhere"], 2, "invalid choice: 'nowhere'"),
    (["million", "--parts", "nope"], 2, "--parts: 'nope' is not one"),
    (["exported"], 1, "exported has numbers alone"),
]


def measured(name: str, words: list[object], out: Path, *, rounds: int = 1) -> dict:
    bench.main(
        [name, "--rounds", str(rounds), "--one-process", "--json", str(out / "x.json"), *map(str, words)]
    )
    return json.loads((out / "x.json").read_text())


def test_the_page_is_what_the_kept_numbers_make_it():
    assert (ROOT / "scripts" / "BENCHMARKS.md").read_text() == bench.page(bench.RESULTS), (
        "run 'python scripts/bench.py --write'; numbers are changed in scripts/benchmarks/*.json"
    )


def test_what_is_kept_has_a_machine_a_day_a_command_and_columns():
    kept = {path.stem for path in bench.RESULTS.glob("*.json")}
    assert kept == {*bench.NAMES, "machines"}
    for name, module in bench.NAMES.items():
        columns = set(importlib.import_module(module).COLUMNS)
        for run in bench.kept_of(name, bench.RESULTS)["runs"]:
            assert run["machine"] in bench.machines(bench.RESULTS)
            assert date.fromisoformat(run["date"])
            assert run["command"].startswith(
                ("python scripts/bench.py", "distill ", "bash scripts/gpu_check.sh")
            )
            assert run["rows"]
            assert all(row.keys() <= columns for row in run["rows"])


def test_bench_lists_every_benchmark_and_each_is_tried_here(capsys):
    bench.main([])
    listed = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert listed == list(bench.NAMES)
    assert set(listed) == {*LEAST, *QUICK} | WITHOUT_OPTIONS
    files = {path.stem for path in bench.RESULTS.glob("*.py")}
    ours = {"turns", "steps", "pictures", "cache_now", "cache_before", "cache_memmap", "cache_probe"}
    assert files - {"__init__", *ours} == set(bench.NAMES) - {"load", "million"}


def test_every_command_of_the_page_is_one_that_is_read():
    page = (ROOT / "scripts" / "BENCHMARKS.md").read_text()
    commands = [line.split() for line in re.findall(r"^    python scripts/bench.py (.*)", page, re.MULTILINE)]
    assert len(commands) > 20
    for name, *words in commands:
        bench.parser_of(name).parse_args(
            [{"BATCH": "2", "PRECISION": "float32"}.get(word, word) for word in words]
        )


def test_ways_take_turns_and_ratios_are_medians_of_each_rounds_ratio():
    calls: list[str] = []
    values = {"a": iter([1.0, 8.0, 4.0]), "b": iter([3.0, 8.0, 2.0])}

    def take(name: str) -> float:
        calls.append(name)
        return next(values[name])

    rounds = in_turn({name: lambda name=name: take(name) for name in values}, 3)
    assert calls == ["a", "b"] * 3
    assert medians(rounds) == {"a": 4.0, "b": 3.0}
    # Not the ratio of the medians, 0.75: 3 / 1, 8 / 8, 2 / 4.
    assert median_ratios(rounds, "a") == {"a": 1.0, "b": 1.0}
    generator = np.random.default_rng(0)
    table = generator.uniform(1, 2, size=(5, 2))
    rounds = [{"a": float(a), "b": float(b)} for a, b in table]
    assert median_ratios(rounds, "b")["a"] == pytest.approx(np.sort(table[:, 0] / table[:, 1])[2])


def test_a_kept_run_takes_the_place_of_the_same_command_on_the_same_machine(tmp_path):
    for name in ("machines", "neighbours"):
        (tmp_path / f"{name}.json").write_bytes((bench.RESULTS / f"{name}.json").read_bytes())
    before = bench.kept_of("neighbours", tmp_path)
    run = {**before["runs"][0], "rows": [{"texts": 7, "FAISS": 12.345}]}
    bench.keep("neighbours", {**run, "command": "python scripts/bench.py neighbours"}, tmp_path)
    bench.keep("neighbours", run, tmp_path)
    after = bench.kept_of("neighbours", tmp_path)
    assert [one["rows"] for one in after["runs"]] == [run["rows"]] * 2
    assert after["notes"] == before["notes"]
    assert "| EPYC, 2026-11-26 | 7 | 12.3 ms |" in bench.page(tmp_path).replace(" |  |  |", " |")


@pytest.mark.parametrize(("words", "status", "text"), WRONG)
def test_wrong_input_is_one_line_and_the_right_status(words, status, text, photos, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        bench.main([str(photos) if word == "PHOTOS" else str(word) for word in words])
    assert left.value.code == status
    *usage, last = capsys.readouterr().err.splitlines()
    assert text in last
    assert not usage or usage[0].startswith("usage: ")  # argparse's


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.long) for name in LEAST)])
def test_benchmark_writes_its_table_with_hardware_and_versions(
    name, photos, teacher_dir, tmp_path, request, monkeypatch, capsys
):
    words, ratios = {**QUICK, **LEAST}[name]
    put: dict[object, object] = {"PHOTOS": photos, "TEACHER": f"local-dir:{teacher_dir}"}
    put["NEW"] = tmp_path / "new"
    put["PHOTO"] = next(photos.glob("*/*/*.*"))
    if name == "web":
        from helpers.browsers import skip_without_page

        skip_without_page()
    if name == "growth":  # whose teacher is the demo's, and knows these words
        words_of = ("red square", "blue star", "green circle", "white cross", "yellow ring", "black heart")
        called = dict(zip(sorted({path.name for path in photos.glob("*/*")}), words_of, strict=False))
        for folder in [*photos.glob("*/*")]:
            folder.rename(folder.with_name(called[folder.name]))
    if name == "sources":  # in this process another test may have had another server
        remote_files._by_scheme.cache_clear()
    if "DEMO" in words:
        (tmp_path / "runs").mkdir()
        (tmp_path / "runs" / "full-1").symlink_to(request.getfixturevalue("trained") / "run")
        put["DEMO"] = tmp_path
    if "MODEL" in words:
        put["MODEL"] = request.getfixturevalue("plain")
    monkeypatch.chdir(ROOT)  # its commands are this folder's
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    result = measured(name, [put.get(word, word) for word in words], tmp_path)
    assert {"command", "date", "hardware", "versions", "rows", "details"} <= result.keys()
    assert result["command"].startswith(f"python scripts/bench.py {name} --rounds 1 --one-process --")
    for row in result["rows"]:
        assert all(math.isfinite(row[column]) and row[column] > 0 for column in ratios), row
    assert f"| {next(iter(result['rows'][0]))} |" in capsys.readouterr().out


def test_the_numbers_of_a_table_are_those_of_its_turns(tmp_path):
    result = measured("neighbours", QUICK["neighbours"][0], tmp_path, rounds=3)
    for row, rounds in zip(result["rows"], result["details"], strict=True):
        middle = sorted(turn["torch top-k"] / turn["FAISS"] for turn in rounds)[1]
        assert row["torch / FAISS"] == middle
        assert row["in the step"] == 1e3 * sorted(turn["in the step"] for turn in rounds)[1]
        assert row["same"] == 1


@pytest.mark.long
def test_pictures_are_drawn_from_what_is_kept(tmp_path):
    from benchmarks.pictures import draw_all

    runs = {name: bench.kept_of(name, bench.RESULTS)["runs"] for name in bench.NAMES}
    draw_all(runs, bench.machines(bench.RESULTS), tmp_path)
    for name in ("input", "ablations", "step"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
