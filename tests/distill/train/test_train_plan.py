"""What a run would be, without making it."""

from __future__ import annotations

import json

from click.testing import CliRunner
from helpers.runs import SMALL

import cli

WORDS = [word for setting in SMALL for word in ("--set", setting)]


def planned(cached, photos, *more):
    words = ["train", cached.path, "--data", photos, "--recipe", "small", *WORDS, "--plan", *more]
    ended = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output
    return ended.stdout


def test_a_plan_says_images_steps_rates_and_time_and_leaves_nothing(cached, photos, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    out = tmp_path / "run"
    plan = json.loads(planned(cached, photos, "--out", out, "--json"))
    assert sorted(tmp_path.rglob("*")) == before
    assert (plan["recipe"], plan["cache"]) == ("small", str(cached.path))
    assert plan["images"] == {"train": 24, "pool": 0}
    assert plan["steps"] == {"epoch": 12, "all": 36}  # three passes of four batches, three times
    rates = plan["rates"]
    assert rates["end"] < rates["start"] < rates["peak"] <= plan["config"]["optim.lr"] == 0.01
    assert plan["start"] == "random weights (scratch)"
    seconds = plan["seconds"]
    assert min(seconds["step"], seconds["judging"]) > 0 == seconds["features"]
    assert seconds["all"] >= 36 * seconds["step"]


def test_a_plan_for_people_names_the_settings_that_are_not_the_defaults(cached, photos):
    said = planned(cached, photos, "--set", "train.head_only=closed-form")
    assert "  data.repeat_epochs = 3\n" in said
    assert "data.policy" not in said
    assert "random weights (scratch)" in said
    assert "features" in said
    assert "an epoch" not in said


def test_a_plan_is_of_a_new_run(cached):
    ended = CliRunner().invoke(cli.main, ["train", str(cached.path), "--plan", "--resume"])
    assert (ended.exit_code, "leave out --resume" in ended.output) == (2, True)
    ended = CliRunner().invoke(cli.main, ["train", str(cached.path)])
    assert (ended.exit_code, "Missing option '--out'" in ended.output) == (2, True)
