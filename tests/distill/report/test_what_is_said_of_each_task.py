"""Reports of made-up runs: what is said of photos stands with photos, what of episodes with episodes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from distill.data_identity import DataIdentity
from distill.report.collect import OBJECTS, collect
from distill.report.costs import cost_table
from distill.report.page import report
from distill.report.tables import main_table
from distill.report.tasks import EPISODES, PHOTOS, parts_of
from distill.settings import load_recipe, to_toml, with_settings


def write_run(folder: Path, task, *settings: str, views: str = "", cache: str = "0") -> None:
    """A finished run of one result, the teacher's beside it."""
    folder.mkdir(parents=True)
    result = {f"ood_test_{task.measure}": 40.0}
    summary = {
        **result,
        "teacher_metrics": {f"ood_test_{task.measure}": 50.0},
        task.per_class: {"ood_test": {"plum": 40.0}},
        "images_per_s": 10.0,
        "cache_fingerprint": cache * 16,
        "data": DataIdentity(views=views).to_json(),
    }
    (folder / "config.toml").write_text(to_toml(with_settings(load_recipe("smoke"), settings)))
    (folder / "metrics.jsonl").write_text(json.dumps({"epoch": 1, **result}) + "\n")
    (folder / "summary.json").write_text(json.dumps(summary))


@pytest.mark.parametrize("task", [PHOTOS, EPISODES], ids=["photos", "episodes"])
def test_a_teacher_has_one_row_whatever_prompts_its_students_learnt(tmp_path, task):
    for learner in ("none", "coop", "cocoop"):
        write_run(tmp_path / learner, task, f"prompts.learner={learner}")
    (part,) = parts_of(collect(tmp_path).finished)
    heads = [row.head for row in main_table(part).rows]
    assert heads == ["learner=cocoop", "learner=coop", "learner=none", "teacher"]


def test_a_cache_is_named_where_its_teachers_do_not_tell_it(tmp_path):
    for name, teachers, cache in (
        ("one", '["main"]', "1"),
        ("other", '["dino"]', "2"),
        ("both", '["main", "dino"]', "3"),
    ):
        write_run(tmp_path / "told" / name, PHOTOS, f"teachers={teachers}", cache=cache)
        write_run(tmp_path / "not" / name, PHOTOS, cache=cache)
    labels = {
        kind: [group.label for group in parts_of(collect(tmp_path / kind).finished)[0].groups]
        for kind in ("told", "not")
    }
    assert sorted(labels["told"]) == ["teachers=dino", "teachers=main", "teachers=main, dino"]
    assert sorted(labels["not"]) == [f"cache={digit * 16}" for digit in "123"]


def test_other_data_are_told_beside_the_runs_whose_they_are(tmp_path):
    write_run(tmp_path / "runs" / "photo", PHOTOS)
    for views in ("8 of 0.08", "4 of 0.08"):
        write_run(tmp_path / "runs" / f"episode{views[0]}", EPISODES, views=views)
    report(tmp_path / "runs", tmp_path / "report.html")
    for ending, heads in (
        ("html", ('id="results"', 'id="results-episodes"')),
        ("md", ("## Photos", "## Episodes")),
    ):
        text = (tmp_path / f"report.{ending}").read_text()
        first, second = map(text.index, heads)
        assert "is not data A" not in text[first:second]
        assert (
            text[second:].count("judged on other episodes, are rows of their own: data B is not data A: ")
            == 1
        )


@pytest.mark.parametrize(("task", "heading"), [(PHOTOS, "images/s"), (EPISODES, "episodes/s")])
def test_speed_is_told_in_what_the_runs_are_of(tmp_path, task, heading):
    write_run(tmp_path / "run", task)
    (part,) = parts_of(collect(tmp_path).finished)
    assert part.task is task
    assert (task.per_class == OBJECTS) == part.runs[0].episodes
    assert heading in cost_table(part).columns
