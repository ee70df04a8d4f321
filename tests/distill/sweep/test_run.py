"""A sweep's runs: what is left to do, what a failure or a stop leaves, and their means."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time

import pytest
import torch
from helpers.processes import distill
from helpers.runs import BASE, numbers, weights
from helpers.sweeps import invoke

from cache.store.checksums import append_checksum
from distill.settings import to_toml, with_settings
from distill.sweep.plan import load_sweep
from distill.sweep.run import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    NEW,
    Place,
    Processes,
    RunResult,
    means_of,
    read_summary,
    run_sweep,
    states,
)
from distill.sweep.watch import Lines, LiveTable
from distill.train.start import train as run


def sweep_here(path, place, engine=None):
    return run_sweep(load_sweep(path), place, engine or Processes(), Lines((), place))


@pytest.mark.parametrize("text", ["", "[1]", '{"status": "finished"', "[" * 100_000])
def test_a_damaged_run_fails_and_stops_no_other(written, place_of, text):
    path, place = (
        written('recipe = "smoke"\n[grid]\nloss.mse = [0, 1]\n[base]\ntrain.device = "cpu"\n'),
        place_of(),
    )
    folder = place.out / "mse=0,seed=0"
    folder.mkdir(parents=True)
    (folder / "config.toml").write_text(to_toml(load_sweep(path).runs[0].config))
    (folder / "summary.json").write_text(text)
    assert "mse=0,seed=0: damaged" in invoke(path, place, "--plan").stdout
    results = sweep_here(
        path, place, lambda runs, place, watch: [RunResult(run=r, status="finished") for r in runs]
    )
    assert [result.status for result in results] == ["failed", "finished"]
    assert "is damaged" in results[0].error


def test_finished_runs_are_skipped_interrupted_ones_go_on_and_failed_ones_stop_no_other(
    written, place_of, forked
):
    path = written(
        "question = 'Which?'\n" + BASE + "[one_at_a_time]\nloss.mse = [0]\ntext = ['no-such-bank']\n"
    )
    place = place_of()
    sweep = load_sweep(path)
    base, mse, broken = sweep.runs
    # One that finished, and one that was killed after its first epoch.
    run(base.config, cache_dir=place.cache, data_dir=place.data, out=place.folder(base))
    before = (place.folder(base) / "summary.json").read_bytes()
    _killed_after_one_epoch(mse, place)
    assert list(states(sweep, place).values()) == [FINISHED, INTERRUPTED, NEW]

    ended = invoke(path, place, "--json", "--jobs", "2")

    assert ended.exit_code == 1
    results = json.loads(ended.stdout)
    assert [one["status"] for one in results] == [FINISHED, FINISHED, FAILED]
    assert "no-such-bank" in results[2]["error"]
    assert f"failed: {broken.name}" in ended.stderr
    assert (place.folder(base) / "summary.json").read_bytes() == before
    whole = place_of().out
    run(mse.config, cache_dir=place.cache, data_dir=place.data, out=whole)
    assert numbers(place.folder(mse)) == numbers(whole)
    mine, theirs = weights(place.folder(mse)), weights(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert json.loads((place.out / "sweep.json").read_text())["question"] == "Which?"
    # Again: two are skipped, the broken one is tried once more.
    again = json.loads(invoke(path, place, "--json").stdout)
    assert [one["status"] for one in again] == [FINISHED, FINISHED, FAILED]


def _killed_after_one_epoch(planned, place):
    """Leave what a killed run leaves: a run of one epoch under the config of the whole."""
    out, config = place.folder(planned), planned.config
    run(with_settings(config, ["train.epochs=1"]), cache_dir=place.cache, data_dir=place.data, out=out)
    (out / "summary.json").unlink()
    (out / "outputs.npz").unlink()
    (out / "config.toml").write_text(to_toml(config))
    state = torch.load(out / "last.pt", weights_only=True)
    torch.save({**state, "config": to_toml(config)}, out / "last.pt")
    append_checksum(out / "last.pt")


def test_a_folder_with_a_run_of_other_settings_is_refused_before_anything_begins(written, place_of):
    path, place = written(BASE + "[grid]\nloss.mse = [0, 1]\n"), place_of()
    sweep = load_sweep(path)
    other = place.folder(sweep.runs[1])
    other.mkdir(parents=True)
    (other / "config.toml").write_text(to_toml(with_settings(sweep.runs[1].config, ["optim.lr=0.5"])))
    ended = invoke(path, place)
    assert ended.exit_code == 1
    assert str(other) in ended.stderr
    assert "optim.lr" in ended.stderr
    assert not place.folder(sweep.runs[0]).exists()


def test_the_live_table_fits_its_terminal_and_shows_what_runs(written, place_of, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("LINES", "24")
    path, place = written(f"seeds = {list(range(40))}\n"), place_of()
    runs = load_sweep(path).runs
    watch = LiveTable(runs, place)
    watch.started(runs[37])
    shown, hidden = watch._shown()
    watch.close()
    assert runs[37] in shown
    assert len(shown) + 6 <= 24
    assert len(shown) + len(hidden) == 40


def test_a_point_has_mean_and_deviation_over_its_finished_seeds(written):
    from distill.sweep.run import RunResult

    a, b, c = load_sweep(written("seeds = [0, 1, 2]\n")).runs
    results = [
        RunResult(run=a, status=FINISHED, summary={"id_test_accuracy": 10.0, "ood_test_accuracy": 1.0}),
        RunResult(run=b, status=FINISHED, summary={"id_test_accuracy": 14.0, "ood_test_accuracy": 1.0}),
        RunResult(run=c, status=FAILED, error="x"),
    ]
    (line,) = means_of(results)
    assert (line["n"], line["id_test"], line["ood_test"], line["ood_test_std"]) == (2, 12.0, 1.0, 0.0)
    assert line["id_test_std"] == pytest.approx(8**0.5)


@pytest.mark.parametrize(
    ("more", "number", "status"),
    [(["--jobs", "2"], signal.SIGTERM, 143), (["--together"], signal.SIGINT, 130)],
)
def test_a_stopped_sweep_saves_its_runs_and_the_same_command_goes_on(
    more, number, status, written, place_of, forked
):
    path, place = (
        written(BASE.replace("epochs = 2", "epochs = 5000") + "data.seed = 1\n[grid]\nloss.mse = [0, 1]\n"),
        place_of(),
    )
    where = ["--cache", place.cache, "--data", place.data, "--out", place.out]
    process = subprocess.Popen([*distill("sweep", path, *where), *more], stderr=subprocess.PIPE)
    runs = load_sweep(path).runs
    until = time.monotonic() + 600
    while not all((place.folder(planned) / "last.pt").exists() for planned in runs):
        assert process.poll() is None
        assert time.monotonic() < until, "no checkpoint was written"
        time.sleep(0.1)
    process.send_signal(number)
    _, printed = process.communicate(timeout=600)
    assert process.returncode == status, printed
    assert b"go on with the same command" in printed
    assert set(states(load_sweep(path), place).values()) == {INTERRUPTED}
    # No process of a run is left behind: a run's epochs stand still.
    stood = [len(numbers(place.folder(planned))) for planned in runs]
    time.sleep(1)
    assert [len(numbers(place.folder(planned))) for planned in runs] == stood


@pytest.mark.long
def test_a_sweep_of_episodes_is_judged_by_average_precision_and_goes_on_as_one_of_photos(
    written, tmp_path, episodes, episode_cache, forked
):
    path = written(
        'recipe = "robotics_demo"\nseeds = [0, 1]\n' + BASE + "data.seed = 3\n[grid]\nloss.mse = [0, 1]\n"
    )
    place = Place(cache=episode_cache, data=episodes, out=tmp_path / "runs")
    ended = invoke(path, place, "--together", "--json")
    assert ended.exit_code == 0, ended.stderr
    first = json.loads(ended.stdout)[0]
    assert first["status"] == FINISHED
    assert "ood_test_ood_objects_average_precision" in first
    assert "mse=0,seed=0: finished (1 of 4): ID " in ended.stderr
    planned = load_sweep(path).runs[3]
    shutil.rmtree(place.folder(planned))
    assert list(states(load_sweep(path), place).values()) == [FINISHED] * 3 + [NEW]
    printed = invoke(path, place)  # in a process of its own
    assert printed.exit_code == 0, printed.stderr
    assert "mean average precision, mean and deviation over seeds" in printed.stdout
    results = [
        RunResult(run=r, status=FINISHED, summary=read_summary(place.folder(r)))
        for r in load_sweep(path).runs
    ]
    for line, two in zip(means_of(results), (results[:2], results[2:]), strict=True):
        values = [one.summary["ood_test_average_precision"] for one in two]
        assert line["ood_test"] == pytest.approx(sum(values) / 2)
    alone = tmp_path / "alone"
    run(planned.config, cache_dir=place.cache, data_dir=place.data, out=alone)
    assert numbers(place.folder(planned)) == numbers(alone)
