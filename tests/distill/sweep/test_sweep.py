"""Sweeps: what a file plans, what is left to do, and students trained beside each other."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from dataclasses import replace

import pytest
import torch
from click.testing import CliRunner
from conftest import make_cache, make_photos
from helpers.processes import distill
from helpers.runs import BASE, numbers, weights

import cli
from cache.runtime.errors import UserError
from cache.store.checksums import append_checksum
from distill.settings import load_recipe, names_in, to_toml, with_settings
from distill.sweep.plan import SWEEPS, load_sweep
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
from distill.sweep.together import Together, groups_of, what_parts
from distill.sweep.watch import Lines, LiveTable
from distill.train.start import train as run


@pytest.fixture(scope="module")
def place_of(tmp_path_factory):
    """A function that gives a place with a cache, photos and an ``out`` of its own."""
    root = tmp_path_factory.mktemp("sweep")
    cached = make_cache(root / "cache", make_photos(root / "photos"))
    made = iter(range(1000))
    return lambda: Place(cache=cached.path, data=root / "photos", out=root / f"runs-{next(made)}")


@pytest.fixture
def written(tmp_path):
    """A function that writes a sweep file."""

    def write(text: str, name: str = "mine.toml") -> str:
        (tmp_path / name).write_text(text)
        return str(tmp_path / name)

    return write


def names(sweep):
    return [planned.name for planned in sweep.runs]


def invoke(path, place, *more):
    where = ["--cache", str(place.cache), "--data", str(place.data), "--out", str(place.out)]
    return CliRunner().invoke(cli.main, ["sweep", path, *where, *more])


def sweep_here(path, place, engine=None):
    return run_sweep(load_sweep(path), place, engine or Processes(), Lines((), place))


def test_a_grid_has_every_combination_times_seeds(written):
    sweep = load_sweep(
        written("seeds = [3, 4]\n[grid]\nloss.vlalign_k = [1, 2]\nloss.vlalign_filter = [false, true]\n")
    )
    assert names(sweep) == [
        f"vlalign_k={k},vlalign_filter={f},seed={s}"
        for k in (1, 2)
        for f in ("false", "true")
        for s in (3, 4)
    ]
    last = sweep.runs[-1].config
    assert (last.loss.vlalign_k, last.loss.vlalign_filter, last.train.seed) == (2, True, 4)


def test_one_at_a_time_changes_one_setting_of_the_base_after_the_other(written):
    sweep = load_sweep(
        written("[base]\nloss.mse = 2\n[one_at_a_time]\noptim.lr = [0.1, 0.2]\nloss.mse = [0]\n")
    )
    assert names(sweep) == ["base,seed=0", "lr=0.1,seed=0", "lr=0.2,seed=0", "mse=0,seed=0"]
    assert [(r.config.optim.lr, r.config.loss.mse) for r in sweep.runs] == [
        (0.05, 2),
        (0.1, 2),
        (0.2, 2),
        (0.05, 0),
    ]


def test_a_list_has_names_of_its_own_or_what_differs(written):
    sweep = load_sweep(
        written('[[runs]]\nname = "mine"\nloss.mse = 1\n[[runs]]\nstudent.arch = "timm:a/b c"\n')
    )
    assert names(sweep) == ["mine,seed=0", "arch=timm-a-b-c,seed=0"]


def test_keys_that_end_alike_are_named_in_full(written):
    sweep = load_sweep(
        written("[[runs]]\ntrain.batch_size = 4\ndata.seed = 1\n[[runs]]\nprompts.n_ctx = 2\n")
    )
    assert names(sweep) == ["batch_size=4,seed=1,seed=0", "n_ctx=2,seed=0"]
    sweep = load_sweep(written("[grid]\noptim.name = ['sgd']\n[[runs]]\noptim.lr = 1.5e-4\n"))
    assert names(sweep) == ["name=sgd,seed=0", "lr=0.00015,seed=0"]


def test_numbers_that_differ_late_have_names_of_their_own(written):
    sweep = load_sweep(written("[grid]\noptim.lr = [0.1234567, 0.12345678, 0.5]\n"))
    assert [run.point for run in sweep.runs] == ["lr=0.1234567", "lr=0.12345678", "lr=0.5"]


def test_a_recipe_may_lie_beside_the_sweep(written, tmp_path, monkeypatch):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "my.toml").write_text("train.epochs = 77\n")
    path = written('recipe = "my.toml"\n')
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert load_sweep(path).runs[0].config.train.epochs == 77


def test_a_setting_that_the_runs_differ_in_is_not_for_the_command(written, place_of):
    path, place = written("[[runs]]\nname = 'a'\n[[runs]]\nname = 'b'\nloss.mse = 3\n"), place_of()
    ended = invoke(path, place, "--set", "loss.mse=0.5", "--plan")
    assert ended.exit_code == 2
    assert "--set loss.mse=0.5: loss.mse is what the runs of this sweep differ in" in ended.stderr


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


def test_a_folder_without_images_is_found_before_any_run_begins(written, place_of, tmp_path):
    path, place = written("seeds = [0, 1]\n"), place_of()
    ended = invoke(path, replace(place, data=tmp_path))
    assert ended.exit_code == 1
    assert ended.stderr.count("has no folder 'train'") == 1


def test_settings_of_the_command_are_put_over_the_base_of_every_run(written):
    path = written("[base]\ntrain.epochs = 9\n[grid]\nloss.mse = [0, 1]\n")
    sweep = load_sweep(path, settings=["train.epochs=3"])
    assert {r.config.train.epochs for r in sweep.runs} == {3}
    assert {r.config.loss.mse for r in sweep.runs} == {0, 1}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[base]\nloss.vlalign_kk = 4\n", "loss.vlalign_kk is not a setting"),
        ("[grid]\noptim.learning = [1]\n", "optim.learning is not a setting"),
        ("[grids]\nloss.mse = [1]\n", "grids is not a key of a sweep. Fix: did you mean 'grid'?"),
        ("[grid]\n", "[grid] is empty"),
        ("[grid]\nloss.mse = []\n", "loss.mse of [grid] is [], expected a list of at least one value"),
        ("[grid]\nloss.mse = 3\n", "loss.mse of [grid] is 3, expected a list"),
        ("[grid]\nloss.mse = ['a']\n", "loss.mse"),
        ("[one_at_a_time]\n", "[one_at_a_time] is empty"),
        ("runs = []\n", "runs is empty"),
        ("runs = 4\n", "runs is 4, expected tables"),
        ("base = 4\n", "base is 4, expected a section"),
        ("seeds = []\n", "seeds is []"),
        ("seeds = [true]\n", "seeds is [True]"),
        ("seeds = [1, -1]\n", "seeds is [1, -1]"),
        ("seeds = [9223372036854775808]\n", "a number has more than 64 bits"),
        (f"[[runs]]\nname = '{'a' * 201}'\n", "has 208 bytes, more than 200"),
        ("[[runs]]\nname = 'a'\n[[runs]]\nname = 'A'\nloss.mse = 1\n", "two runs are called 'A,seed=0'"),
        ("seeds = [1, 1]\n", "seeds is [1, 1]. Fix: give each seed once"),
        ("recipe = 'resnet81'\n", "resnet81"),
        ("recipe = 4\n", "recipe is 4, expected a text"),
        ("[[runs]]\nname = 'a'\n[[runs]]\nname = 'a'\nloss.mse = 1\n", "two runs are called 'a,seed=0'"),
        ("[[runs]]\nname = 'a'\n[[runs]]\nname = 'b'\n", "the runs 'a,seed=0' and 'b,seed=0' have the same settings"),
        ("[[runs]]\nname = '../a'\n", "the name '../a' of a run cannot name a folder"),
        ("[grid]\ntrain.seed = [1]\n", "train.seed is among the settings"),
        ("[base\n", "is not TOML"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_in_one_line_that_names_it(text, said, written, place_of):
    path, place = written(text), place_of()
    ended = invoke(path, place)
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"Error: {path}")
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not place.out.exists()


@pytest.mark.parametrize(
    ("text", "setting", "status", "said"),
    [
        ("", "data.see=0", 2, "Error: --set data.see=0: data.see is not a setting"),
        ("", "train.seed=1", 2, "Error: --set train.seed=1: train.seed is among the settings"),
        ("", "recipe=resnet81", 2, "Error: --set recipe=resnet81: no recipe is called 'resnet81'"),
        ("[grid]\nloss.mse = 3\n", "data.see=0", 1, "mine.toml: loss.mse of [grid] is 3"),
    ],
)
def test_a_wrong_setting_of_the_command_is_blamed_on_the_command(
    text, setting, status, said, written, place_of
):
    ended = invoke(written(text), place_of(), "--set", setting)
    assert ended.exit_code == status
    assert said in ended.stderr
    assert ended.stderr.count("\n") == 1


def test_a_setting_of_the_command_may_mend_the_file(written):
    path = written("[base]\nloss.cls = 0\n[grid]\nloss.temperature = [0.1, 0.2]\n")
    assert [r.config.loss.mse for r in load_sweep(path, settings=["loss.mse=1"]).runs] == [1, 1]


def test_a_sweep_that_does_not_exist_names_those_that_do(place_of):
    ended = invoke("no-such", place_of())
    assert ended.exit_code == 1
    assert "no sweep is called 'no-such'" in ended.stderr
    assert all(name in ended.stderr for name in names_in(SWEEPS))


@pytest.mark.parametrize("name", names_in(SWEEPS))
def test_every_sweep_that_comes_with_the_package_can_be_planned_with_settings_of_ones_own(name):
    sweep = load_sweep(name, settings=["train.epochs=2"])
    assert sweep.question.endswith("?")
    assert {planned.seed for planned in sweep.runs} == {0, 1, 2}
    assert all(planned.config.train.epochs == 2 for planned in sweep.runs)


def test_the_losses_of_the_main_table_are_added_one_by_one():
    weights = {r.point: r.config.loss for r in load_sweep("losses").runs}
    on = {
        point: [n for n in ("cls", "mse", "im_cst", "vlalign", "cap") if getattr(w, n)]
        for point, w in weights.items()
    }
    assert on == {
        "cls": ["cls"],
        "cls+mse": ["cls", "mse"],
        "cls+mse+im_cst": ["cls", "mse", "im_cst"],
        "cls+mse+im_cst+vlalign": ["cls", "mse", "im_cst", "vlalign"],
    }


def test_a_run_may_have_another_recipe(written):
    sweep = load_sweep(
        written("[base]\ntrain.epochs = 3\n[grid]\nrecipe = ['resnet18', 'vit_b_32']\nloss.mse = [0, 2]\n")
    )
    assert names(sweep)[3] == "recipe=vit_b_32,mse=2,seed=0"
    config = sweep.runs[3].config
    assert (config.student.arch, config.optim.name, config.train.epochs, config.loss.mse) == (
        "vit_b_32",
        "adamw",
        3,
        2,
    )


def test_the_plan_names_every_run_and_touches_nothing(written, place_of):
    path, place = written(BASE + "[grid]\nloss.mse = [0, 1]\n"), place_of()
    ended = invoke(path, place, "--plan", "--together")
    assert ended.exit_code == 0
    assert "2 runs" in ended.stdout
    assert "mse=0,seed=0: new" in ended.stdout
    assert "streams of batches: 1 (students in each: 2)" in ended.stdout
    assert not place.out.exists()


def test_together_with_jobs_is_a_usage_error(written, place_of):
    ended = invoke(written(BASE), place_of(), "--together", "--jobs", "2")
    assert ended.exit_code == 2
    assert "--jobs" in ended.stderr


def test_finished_runs_are_skipped_interrupted_ones_go_on_and_failed_ones_stop_no_other(written, place_of):
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
    found = json.loads(ended.stdout)
    assert [one["status"] for one in found] == [FINISHED, FINISHED, FAILED]
    assert "no-such-bank" in found[2]["error"]
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


def test_students_trained_together_equal_their_separate_runs_bit_for_bit(written, place_of):
    path = written(
        "seeds = [0, 1]\n" + BASE + "data.seed = 5\n"
        "[one_at_a_time]\nloss.mse = [0]\nloss.im_cst = [0.5]\noptim.lr = [0.002]\noptim.name = ['adamw']\n"
    )
    together, separate = place_of(), place_of()
    sweep = load_sweep(path)
    assert len(groups_of(sweep.runs)) == 1
    ended = invoke(path, together, "--together", "--json")
    assert ended.exit_code == 0, ended.stderr
    for planned in [planned for planned in sweep.runs if planned.seed == 0 or planned.point == "base"]:
        run(planned.config, cache_dir=separate.cache, data_dir=separate.data, out=separate.folder(planned))
        assert numbers(together.folder(planned)) == numbers(separate.folder(planned))
        mine, theirs = weights(together.folder(planned)), weights(separate.folder(planned))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    found = json.loads((together.out / sweep.runs[0].name / "summary.json").read_text())
    assert found["trained_beside"] == len(sweep.runs) - 1


def test_the_plan_is_json_when_asked_for(written, place_of):
    path, place = written("seeds = [0, 1]\n[grid]\nloss.mse = [0, 1]\n"), place_of()
    alone = json.loads(invoke(path, place, "--plan", "--json").stdout)
    assert alone[1] == {"name": "mse=0,seed=1", "settings": {"loss.mse": 0}, "seed": 1, "state": NEW}
    together = json.loads(invoke(path, place, "--plan", "--json", "--together").stdout)
    assert [(run["seed"], run.pop("stream")) for run in together] == [(0, 0), (1, 1), (0, 0), (1, 1)]
    assert together == alone
    assert not place.out.exists()


def test_runs_that_see_other_batches_are_in_other_streams_and_the_plan_says_why(written, place_of):
    path = written("seeds = [0, 1]\n" + BASE + "[grid]\nloss.mse = [0, 1]\ntrain.batch_size = [4, 6]\n")
    sweep = load_sweep(path)
    assert [len(group) for group in groups_of(sweep.runs)] == [2, 2, 2, 2]
    assert sorted(what_parts(sweep.runs)) == ["data.seed", "train.batch_size"]
    assert "because of" in invoke(path, place_of(), "--plan", "--together").stdout


def test_a_student_that_fails_among_others_is_named_and_the_others_finish(written, place_of):
    path = written(
        BASE
        + "[[runs]]\nname = 'good'\n[[runs]]\nname = 'wild'\noptim.lr = 1e30\n[[runs]]\nname = 'unknown'\ntext = 'no'\n"
    )
    place = place_of()
    ended = invoke(path, place, "--together", "--json")
    assert ended.exit_code == 1
    assert [one["status"] for one in json.loads(ended.stdout)] == [FINISHED, FAILED, FAILED]
    assert "not finite" in json.loads(ended.stdout)[1]["error"]
    alone = place_of()
    good = load_sweep(path).runs[0]
    run(good.config, cache_dir=alone.cache, data_dir=alone.data, out=alone.folder(good))
    assert numbers(place.folder(good)) == numbers(alone.folder(good))


def test_a_run_that_cannot_begin_stops_no_other_beside_it(written, place_of):
    path, place = (
        written(BASE + "[[runs]]\nname = 'torn'\n[[runs]]\nname = 'good'\nloss.mse = 0\n"),
        place_of(),
    )
    torn = place.folder(load_sweep(path).runs[0])
    torn.mkdir(parents=True)
    (torn / "config.toml").write_text(to_toml(load_sweep(path).runs[0].config))
    (torn / "last.pt").write_bytes(b"half of a checkpoint")
    ended = invoke(path, place, "--together", "--json")
    assert ended.exit_code == 1
    assert [one["status"] for one in json.loads(ended.stdout)] == [FAILED, FINISHED]
    assert str(torn / "last.pt") in json.loads(ended.stdout)[0]["error"]


def test_a_sweep_of_which_no_run_can_begin_names_every_error(written, place_of):
    ended = invoke(written(BASE + "text = 'no-such-bank'\n"), place_of(), "--together", "--json")
    assert ended.exit_code == 1
    assert [one["status"] for one in json.loads(ended.stdout)] == [FAILED]
    assert "no-such-bank" in ended.stderr


def test_a_student_that_cannot_be_saved_in_mid_epoch_stops_no_other(written, place_of):
    path = written(
        BASE
        + "train.checkpoint_steps = 1\n[[runs]]\nname = 'wild'\noptim.lr = 1e38\n[[runs]]\nname = 'good'\n"
    )
    place = place_of()
    ended = invoke(path, place, "--together", "--json")
    assert ended.exit_code == 1
    wild, good = json.loads(ended.stdout)
    assert (wild["status"], good["status"]) == (FAILED, FINISHED)
    assert "weights are not finite after epoch 0, step 0" in wild["error"]
    assert "last.pt" not in wild["error"]  # there is none
    assert "wild,seed=0 failed" in ended.stderr


def test_weights_that_the_last_step_broke_are_not_saved(place_of):
    place = place_of()
    config = with_settings(
        load_recipe("smoke"),
        [
            "student.arch=timm:test_resnet",
            "data.workers=0",
            "train.batch_size=24",
            "train.epochs=1",
            "optim.lr=1e38",
        ],
    )  # one step an epoch: no later loss sees what it did
    with pytest.raises(UserError, match="weights are not finite after epoch 0, step 0"):
        run(config, cache_dir=place.cache, data_dir=place.data, out=place.out)
    assert not (place.out / "last.pt").exists()


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
def test_a_stopped_sweep_saves_its_runs_and_the_same_command_goes_on(more, number, status, written, place_of):
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
    _, said = process.communicate(timeout=600)
    assert process.returncode == status, said
    assert b"go on with the same command" in said
    assert set(states(load_sweep(path), place).values()) == {INTERRUPTED}
    # No process of a run is left behind: a run's epochs stand still.
    stood = [len(numbers(place.folder(planned))) for planned in runs]
    time.sleep(1)
    assert [len(numbers(place.folder(planned))) for planned in runs] == stood


def test_a_sweep_of_episodes_is_judged_by_average_precision_and_goes_on_as_one_of_photos(
    written, tmp_path, episodes, episode_cache
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


def test_together_gives_a_result_for_every_run_when_the_stream_cannot_be_opened(written, place_of, tmp_path):
    place = place_of()
    sweep = load_sweep(written(BASE + "[grid]\nloss.mse = [0, 1]\n"))
    from cache.runtime.progress import Silent

    empty = Place(cache=place.cache, data=tmp_path / "empty", out=place.out)
    (tmp_path / "empty").mkdir()
    results = Together(progress=Silent())(sweep.runs, empty, Lines((), empty))
    assert [result.status for result in results] == [FAILED, FAILED]
    assert all("empty" in result.error for result in results)
