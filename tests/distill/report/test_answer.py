"""What a report says first of made-up runs: what won, by how much over which baseline, and how sure that is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from helpers.report_runs import made_up_run

from cache.runtime.errors import UserError
from distill.report.answer import answers
from distill.report.collect import collect
from distill.report.costs import cost_table, why_not
from distill.report.curves import metric_charts
from distill.report.effects import factors, heat_maps, main_effects
from distill.report.page import report
from distill.report.tables import main_table
from distill.report.tasks import Part, parts_of


def part_of(folder: Path, baseline: str | None = None) -> Part:
    (part,) = parts_of(collect(folder).finished, baseline)
    return part


@pytest.fixture
def grid(tmp_path) -> Path:
    """Three weights by two temperatures over three seeds: the weight 2 is 10 points more, temperature nothing."""
    runs, began = tmp_path / "grid", 0
    for weight, gain in ((0, 0.0), (1, 9.9), (2, 10.0)):
        for temperature in (0.05, 0.1):
            for seed, noise in enumerate((0.0, 1.0, -0.6)):
                ood = 40 + gain + noise + 0.1 * ((seed + weight) % 3) + temperature
                name = f"mse={weight},temperature={temperature},seed={seed}"
                settings = (f"loss.mse={weight}", f"loss.temperature={temperature}")
                made_up_run(runs / name, seed, ood, *settings, began=(began := began + 40))
    return runs


def test_the_answer_names_the_winner_the_baseline_and_what_cannot_be_told_from_it(grid):
    first, second = answers(part_of(grid))
    assert first.sure
    assert first.lead.startswith("OOD: cls + 2 mse, temperature=0.1 (")
    assert "10.1 points above the baseline, cls, temperature=0.05 (" in first.lead
    assert "n = 3" in first.why
    assert "after Holm over 5 comparisons" in first.why
    assert "of the 5 others cannot be told from cls + 2 mse, temperature=0.1: " in first.why
    assert "The teacher has 96.0%" in first.why
    assert second.lead.startswith("ID: ")
    marks = {row.head: row.cells[3].mark for row in main_table(part_of(grid)).rows if row.style is not None}
    assert marks["cls + 2 mse, temperature=0.1"] == "best"
    assert [marks[f"cls, temperature={t}"] for t in ("0.05", "0.1")] == ["", ""]
    assert "alike" in marks.values()


@pytest.mark.parametrize("name", ["mse=1,temperature=0.1,seed=2", "cls + mse, temperature=0.1"])
def test_a_baseline_is_a_run_or_a_setting_by_its_name(grid, name):
    assert part_of(grid, name).baseline.label == "cls + mse, temperature=0.1"
    assert "the baseline, cls + mse, temperature=0.1 (" in answers(part_of(grid, name))[0].lead


def test_a_baseline_that_is_not_there_is_told_with_near_names(grid, tmp_path):
    with pytest.raises(
        UserError, match=r"--baseline is 'cls, temperatur=0.1'.*did you mean 'cls, temperature=0.1'"
    ):
        report(grid, tmp_path / "report.html", baseline="cls, temperatur=0.1")


def test_of_one_seed_and_of_one_setting_it_says_why_nothing_can_be_said(tmp_path):
    made_up_run(tmp_path / "runs" / "a", 0, 40.0)
    (alone, _) = answers(part_of(tmp_path / "runs"))
    assert alone.lead == "OOD: 40.0%."
    assert "no other setting to compare with" in alone.why
    made_up_run(tmp_path / "runs" / "b", 0, 45.0, "loss.mse=1", began=40)
    first, second = answers(part_of(tmp_path / "runs"))
    assert not first.sure
    assert first.lead == "OOD: cls + mse (45.0%) is highest, 5.0 points above the baseline, cls (40.0%)."
    assert "With one seed a setting nothing can be said" in first.why
    assert "With one seed" not in second.why  # once is enough


def test_what_is_level_with_the_best_is_not_called_below_it(tmp_path):
    for name, settings in (("a", ()), ("b", ("loss.mse=1",))):
        made_up_run(tmp_path / "runs" / name, 0, 40.0, *settings)
    first = answers(part_of(tmp_path / "runs"))[0]
    assert first.lead.endswith("is level.")
    assert "0.0 points" not in first.lead


def test_runs_that_say_nothing_of_classes_are_answered_by_their_space(tmp_path):
    for name, near in (("a", 0.5), ("b", 0.75)):
        folder = tmp_path / "runs" / name
        made_up_run(folder, 0, 0.0, *(["loss.mse=1"] if name == "b" else []))
        space = {"ood_test": {"cosine": near, "image_neighbours_10": near / 2, "images": 9}}
        (folder / "summary.json").write_text(json.dumps({"space": space, "status": "finished"}))
    (only,) = answers(part_of(tmp_path / "runs"))
    assert only.lead.startswith(
        "OOD: image_neighbours_10: cls + mse (0.375) is highest, 0.125 above the baseline"
    )
    report(tmp_path / "runs", tmp_path / "report.html")


def test_a_grid_has_main_effects_and_a_map_of_two_factors(grid):
    part = part_of(grid)
    mse, temperature = factors(part)
    assert (mse.values, temperature.values) == (("0", "1", "2"), ("0.05", "0.1"))
    table = main_effects(part, (mse, temperature))[0]
    means = [row.cells[0].value for row in table.rows]
    assert means == pytest.approx([40.308, 50.208, 50.308], abs=1e-2)
    (maps,) = heat_maps(part, (mse, temperature))
    assert [len(maps[0].cells), len(maps[0].cells[0])] == [3, 2]
    assert maps[0].cells[0][0].step == 0
    assert maps[0].cells[2][1].step == 7
    assert maps[0].cells[2][1].mark == "best"
    (grid / "mse=2,temperature=0.1,seed=0" / "config.toml").unlink()
    for seed in (1, 2):
        (grid / f"mse=2,temperature=0.1,seed={seed}" / "config.toml").unlink()
    assert factors(part_of(grid)) == ()  # a combination is missing


def test_all_accuracies_have_one_scale_epochs_from_1_and_chance_and_teacher_as_lines(grid):
    charts = metric_charts(part_of(grid))
    assert len({chart.y_ticks for chart in charts}) == 1
    for chart in charts:
        ticks = [float(number) for _, number in chart.x_ticks]
        assert (ticks[0], ticks[-1]) == (1, 3)
        assert all(0 <= float(number) <= 100 for _, number in chart.y_ticks)
    lines = {chart.title: [level.label for _, level in chart.levels] for chart in charts}
    assert lines == {"OOD": ["teacher 96.0", "chance 20.0"], "ID": ["chance 25.0"]}


def test_costs_are_compared_on_one_machine_of_runs_that_were_alone(tmp_path):
    runs = tmp_path / "runs"
    for at, (name, seconds) in enumerate((("a", 30.0), ("b", 60.0))):
        made_up_run(runs / name, 0, 40.0, f"loss.mse={at}", began=at * 40, seconds=seconds)
    table = cost_table(part_of(runs))
    shares = [row.cells[table.columns.index("time, of the baseline's") - 1].text for row in table.rows[:2]]
    assert shares == ["1.00", "2.00"]
    assert why_not(part_of(runs).counted) == ""
    made_up_run(runs / "c", 0, 40.0, "loss.mse=2", began=60)  # while b was at work
    assert "Not alone on the machine" in why_not(part_of(runs).counted)
    assert "b" in why_not(part_of(runs).counted)
    made_up_run(runs / "d", 0, 40.0, "loss.mse=3", began=900, hardware={"cpu": "another"})
    assert "2 kinds of machine" in why_not(part_of(runs).counted)
    assert "time, of the baseline's" not in cost_table(part_of(runs)).columns


def test_start_and_pool_are_columns_where_they_differ(tmp_path):
    runs = tmp_path / "runs"
    for name, start in (("a", "scratch"), ("b", "imagenet")):
        told = {"start": start, "sha256": ""}
        made_up_run(runs / name, 0, 40.0, f"loss.mse={int(name == 'b')}", first_weights=told)
    table = main_table(part_of(runs))
    at = table.columns.index("start") - 1
    assert [row.cells[at].text for row in table.rows[:2]] == ["scratch", "imagenet"]
    assert "pool" not in table.columns
    assert "loss.mse" not in table.columns  # the rows' heads say it


def test_the_mean_of_several_heads_is_a_result_of_its_own(tmp_path):
    for name, mean in (("a", 50.0), ("b", 60.0)):
        judged = {f"ood_test{head}": {"plum": 1.0} for head in ("", "@other", "@mean")}
        more = {"ood_test@other_accuracy": 45.0, "ood_test@mean_accuracy": mean, "per_class_accuracy": judged}
        made_up_run(tmp_path / "runs" / name, 0, 40.0, f"loss.mse={int(name == 'b')}", **more)
    leads = [answer.lead.partition(": ")[0] for answer in answers(part_of(tmp_path / "runs"))]
    assert leads == ["OOD", "OOD (mean of heads)", "ID"]
    report(tmp_path / "runs", tmp_path / "report.html")
