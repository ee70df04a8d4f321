"""What a sweep file plans: its runs and their names, and what is refused before any of them begins."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from helpers.runs import BASE
from helpers.sweeps import invoke, names

from cache.runtime.errors import UserError
from distill.settings import names_in
from distill.sweep.plan import SWEEPS, load_sweep
from distill.sweep.run import (
    NEW,
)
from distill.sweep.together import groups_of, what_parts

GRID = "[grid]\nloss.mse = [0, 1]\n"


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


def test_a_folder_without_images_is_found_before_any_run_begins(written, place_of, tmp_path):
    path, place = written("seeds = [0, 1]\n"), place_of()
    ended = invoke(path, replace(place, data=tmp_path))
    assert ended.exit_code == 1
    assert ended.stderr.count("holds no picture") == 1


def test_settings_of_the_command_are_put_over_the_base_of_every_run(written):
    path = written("[base]\ntrain.epochs = 9\n[grid]\nloss.mse = [0, 1]\n")
    sweep = load_sweep(path, settings=["train.epochs=3"])
    assert {r.config.train.epochs for r in sweep.runs} == {3}
    assert {r.config.loss.mse for r in sweep.runs} == {0, 1}


@pytest.mark.parametrize(
    ("text", "message"),
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
def test_a_wrong_file_is_refused_in_one_line_that_names_it(text, message, written, place_of):
    path, place = written(text), place_of()
    ended = invoke(path, place)
    assert ended.exit_code == 1
    assert ended.stderr.startswith(f"Error: {path}")
    assert message in ended.stderr
    assert ended.stderr.count("\n") == 1
    assert not place.out.exists()


@pytest.mark.parametrize(
    ("text", "setting", "status", "message"),
    [
        (GRID, "data.see=0", 2, "Error: --set data.see=0: data.see is not a setting"),
        (GRID, "train.seed=1", 2, "Error: --set train.seed=1: train.seed is among the settings"),
        (GRID, "recipe=resnet81", 2, "Error: --set recipe=resnet81: no recipe is called 'resnet81'"),
        ("[grid]\nloss.mse = 3\n", "data.see=0", 1, "mine.toml: loss.mse of [grid] is 3"),
    ],
)
def test_a_wrong_setting_of_the_command_is_blamed_on_the_command(
    text, setting, status, message, written, place_of
):
    ended = invoke(written(text), place_of(), "--set", setting)
    assert ended.exit_code == status
    assert message in ended.stderr
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
    sweep = load_sweep(name, settings=["train.eval_batch_size=7"])
    assert sweep.question.endswith("?")
    seeds = {planned.seed for planned in sweep.runs}
    # Nothing of a closed form is drawn.
    assert seeds == {0} if name == "closed-form" else seeds >= {0, 1, 2}
    assert all(planned.config.train.eval_batch_size == 7 for planned in sweep.runs)


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
        written(
            "[base]\ntrain.epochs = 3\n[grid]\nrecipe = ['paper-resnet18', 'paper-vit_b_32']\nloss.mse = [0, 2]\n"
        )
    )
    assert names(sweep)[3] == "recipe=paper-vit_b_32,mse=2,seed=0"
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


def test_a_grid_of_too_many_runs_is_refused_before_they_are_made(tmp_path):
    lists = "".join(
        f"loss.{name} = {list(range(1, 60))}\n" for name in ("cls", "mse", "im_cst", "vlalign", "cap")
    )
    (tmp_path / "s.toml").write_text(f"[grid]\n{lists}")
    with pytest.raises(UserError, match=r"\[grid\] has 714,924,299 combinations. Fix: give at most 10,000"):
        load_sweep(str(tmp_path / "s.toml"))
