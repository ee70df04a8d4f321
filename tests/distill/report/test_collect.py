"""Which runs a report takes, in which groups and order, and what it leaves out by name."""

from __future__ import annotations

import shutil

import pytest
from click.testing import CliRunner
from helpers.report_runs import Words, copied, swept

import cli
from cache.runtime.errors import UserError
from distill.report.collect import collect, read_run
from distill.report.groups import groups_of
from distill.report.page import report
from distill.settings import load_recipe, to_toml, with_settings


def test_unfinished_damaged_and_old_runs_are_named_and_the_rest_is_reported(photo_runs, tmp_path):
    folder = copied(photo_runs, tmp_path)
    (folder / "cls-1" / "summary.json").unlink()
    (folder / "mse-0" / "config.toml").write_text("not [ toml")
    (folder / "mse-1" / "outputs.npz").write_bytes(b"PK damaged")
    (folder / "cls-0" / "outputs.npz").unlink()
    collected = collect(folder)
    assert [r.name for r in collected.finished] == ["cls-0", "mse-1"]
    assert [r.name for r in collected.unfinished] == ["cls-1"]
    assert [name for name, _ in collected.unreadable] == ["mse-0"]
    written = report(folder, tmp_path / "report.html")
    assert [name for name, _ in written.left_out] == ["cls-1", "mse-0"]
    assert "mse-0 was skipped" in (tmp_path / "report.md").read_text()
    page_text = " ".join(Words((tmp_path / "report.html").read_text()).text.split())
    assert "cls-1 is unfinished: 2 of 2 epochs" in page_text
    assert "mse-0 was skipped" in page_text
    assert "cls-0: no outputs.npz. Run its 'distill train' command again with --resume" in page_text
    assert "outputs.npz cannot be read" in page_text


def test_a_setting_of_episodes_that_a_config_leaves_out_has_its_default(tmp_path):
    for name, settings in {"plain": [], "local": ["robotics.local=true"]}.items():
        (tmp_path / name).mkdir()
        config = with_settings(load_recipe("robotics_demo"), settings)
        (tmp_path / name / "config.toml").write_text(to_toml(config))
    settings, groups = groups_of([read_run(tmp_path / name, name) for name in ("plain", "local")])
    assert tuple(settings) == ("robotics.local",)
    assert [group.values["robotics.local"] for group in groups] == [False, True]


def test_a_second_run_of_a_seed_does_not_count_again(photo_runs, tmp_path):
    folder = copied(photo_runs, tmp_path)
    shutil.copytree(folder / "cls-0", folder / "cls-copy")
    _, groups = groups_of(collect(folder).finished)
    assert [len(group.runs) for group in groups] == [2, 2]
    assert [r.name for r in groups[0].repeated] == ["cls-copy"]


def test_a_folder_without_a_run_is_one_clear_error(tmp_path):
    with pytest.raises(UserError, match="holds no run"):
        collect(tmp_path)
    result = CliRunner().invoke(cli.main, ["report", str(tmp_path), "--out", str(tmp_path / "r.html")])
    assert result.exit_code == 1


def test_a_sweep_keeps_its_order_and_its_names(photo_runs, tmp_path):
    of_sweep = collect(swept(photo_runs, tmp_path))
    assert [r.name for r in of_sweep.finished][::2] == ["mse-10,seed=0", "cls-2,seed=0"]
    assert [group.label for group in groups_of(of_sweep.finished)[1]] == ["mse-10", "cls-2"]
    (tmp_path / "swept" / "sweep.json").unlink()
    for name in ("cls-2", "mse-10"):
        (tmp_path / "swept" / f"{name},seed=0").rename(tmp_path / "swept" / f"k={name[4:]}")
    collected = collect(tmp_path / "swept").finished
    assert [r.name for r in collected if "seed" not in r.name] == ["k=2", "k=10"]


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("summary.json", "[1]"),
        ("summary.json", '{"status": "fin'),
        (
            "summary.json",
            '{"status": "finished", "teacher_accuracy": {"id_test": "a"}, "id_test_accuracy": 3}',
        ),
        ("summary.json", '{"status": "finished", "id_test_accuracy": "x"}'),
        ("metrics.jsonl", '{"loss_total": 3}'),
        ("metrics.jsonl", "[" * 100_000),
    ],
)
def test_a_run_with_anything_else_in_its_files_is_named_and_left_out(photo_runs, tmp_path, file, text):
    folder = copied(photo_runs, tmp_path)
    (folder / "cls-0" / file).write_text(text)
    assert [name for name, _ in collect(folder).unreadable] == ["cls-0"]
    report(folder, tmp_path / "report.html")


def test_runs_of_which_none_can_be_read_are_no_report(photo_runs, tmp_path):
    folder = copied(photo_runs, tmp_path)
    for path in folder.glob("*/config.toml"):
        path.write_text("not [ toml")
    with pytest.raises(UserError, match=r"none of its 4 runs can be read; cls-0: "):
        report(folder, tmp_path / "report.html")
    assert not (tmp_path / "report.html").exists()


def test_the_command_says_the_answer_and_what_was_left_out(photo_runs, tmp_path):
    folder = copied(photo_runs, tmp_path)
    (folder / "cls-1" / "summary.json").unlink()
    ended = CliRunner().invoke(cli.main, ["report", str(folder), "--out", str(tmp_path / "report.html")])
    said = " ".join(ended.output.split())
    assert "1 run is left out: cls-1 is unfinished: 2 of 2 epochs" in said
    assert said.startswith(" ".join((tmp_path / "report.md").read_text().split("**")[1].split()))
