"""Tables of small real runs: means of the seeds, the teacher, every class, photos and episodes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from helpers.report_runs import Words, copied, tables_of

from distill.report.collect import OBJECTS, collect
from distill.report.compare import compare_runs
from distill.report.costs import cost_table
from distill.report.curves import scatter_charts
from distill.report.groups import groups_of
from distill.report.page import report
from distill.report.tables import as_csv, main_table, per_class_tables, space_tables
from distill.report.tasks import parts_of


def test_memory_is_in_1e9_bytes_and_losses_are_means_of_the_last_five_epochs(photo_runs, tmp_path):
    place = copied(photo_runs, tmp_path)
    for name, host in (("cls-0", 3_000_000_000), ("mse-0", 4_500_000_000)):
        path = place / name / "summary.json"
        summary = json.loads(path.read_text())
        summary["peak_memory_bytes"] = {"host": host, "device": host + 1_250_000_000}
        path.write_text(json.dumps({**summary, "student_parameters": 2_340_000}))
        lines = [json.dumps({"epoch": i + 1, "loss_cls": i + host / 1e9}) for i in range(7)]
        (place / name / "metrics.jsonl").write_text("\n".join(lines))
    results = {one.metric: one for one in compare_runs(place / "cls-0", place / "mse-0").results}
    memory, loss = results["peak_memory_GB"], results["loss_cls"]
    assert (memory.one.mean, memory.other.mean, memory.difference) == (3.0, 4.5, 1.5)
    assert (loss.one.mean, loss.other.mean, loss.difference) == (7.0, 8.5, 1.5)  # of the epochs 2 to 6
    assert not [name for name in results if name.endswith("/images")]  # a count of images is no result
    (part,) = parts_of([run for run in collect(place).finished if run.name in ("cls-0", "mse-0")])
    cost = cost_table(part)
    heads = ["peak memory, host (GB)", "peak memory, device (GB)", "parameters (million)"]
    at = [cost.columns.index(head) - 1 for head in heads]
    assert [[row.cells[i].text for i in at] for row in cost.rows] == [
        ["3.00", "4.25", "2.34"],
        ["4.50", "5.75", "2.34"],
    ]


def test_space_and_class_tables_have_each_groups_own_numbers(photo_runs):
    (part,) = parts_of(collect(photo_runs).finished)
    groups = part.groups
    kept = [[run.summary for run in group.runs] for group in groups]
    for table, split in zip(space_tables(part), kept[0][0]["space"], strict=True):
        for row, summaries in zip(table.rows, kept, strict=True):
            for head, cell in zip(table.columns[1:], row.cells, strict=True):
                name, arrow = head.split()
                assert arrow == ("↓" if name == "vlalign" else "↑")  # a divergence: nearer is less
                values = [summary["space"][split][name] for summary in summaries]
                assert cell.value == pytest.approx(np.mean(values))
    first = groups[0].runs[0]
    answers = first.outputs.answers["ood_test"]
    shifted = replace(answers, labels=np.array([0, 0, 0, 0, 1, 2, 2, 2, 2]))
    changed = replace(first, outputs=replace(first.outputs, answers={"ood_test": shifted}))
    table = per_class_tables(replace(part, groups=(replace(groups[0], runs=(changed,)),)))[0]
    images = {row.head: row.cells[0].text for row in table.rows}
    assert images == dict(zip(answers.class_names, ("4", "1", "4"), strict=True))


def told(folder, **numbers):
    """Give a run's summary other numbers."""
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, **numbers}))


def test_the_main_table_has_means_of_the_seeds_and_gaps_to_the_teacher(photo_runs, tmp_path):
    folder, page = copied(photo_runs, tmp_path), tmp_path / "report.html"
    # The two deviations of these differ, with n - 1 and with n: 4.243 and 3, 7.071 and 5, 0.028 and 0.02.
    for name, seed, own, every, auroc in (
        ("cls", 0, 40.0, 21.0, 0.55), ("cls", 1, 46.0, 23.0, 0.57),
        ("mse", 0, 50.0, 31.0, 0.61), ("mse", 1, 60.0, 31.5, 0.65),
    ):  # fmt: skip
        numbers = {"ood_test_accuracy": own, "ood_test_all_accuracy": every, "id_ood_auroc": auroc}
        told(folder / f"{name}-{seed}", **numbers)
    report(folder, page)
    lines = list(csv.DictReader(page.with_suffix(".csv").read_text().splitlines()))
    assert [line["run"] for line in lines] == ["cls-0", "cls-1", "mse-0", "mse-1"]
    assert [line["loss.mse"] for line in lines] == ["0", "0", "1", "1"]
    _, groups = groups_of(collect(folder).finished)
    assert [group.label for group in groups] == ["cls", "cls + mse"]
    for group, of_group in zip(groups, (lines[:2], lines[2:]), strict=True):
        own = [float(line["ood_test_accuracy"]) for line in of_group]
        teacher = float(of_group[0]["teacher_ood_test_accuracy"])
        assert group.spread("ood_test_accuracy").mean == pytest.approx(np.mean(own))
        assert group.spread("ood_test_accuracy").std == pytest.approx(np.std(own, ddof=1))
        assert group.gap("ood_test_accuracy").mean == pytest.approx(teacher - np.mean(own))
        assert group.gap("ood_test_accuracy").std == pytest.approx(np.std(own, ddof=1))
    results, quality = tables_of(page.with_suffix(".md").read_text())
    assert results["cls"]["OOD (%)"] == "**43.0 ± 4.2** ≈"  # as near to the best as two seeds can tell
    assert results["cls + mse"]["OOD: difference (points)"] == "+12.0"
    assert results["cls"]["OOD: difference (points)"] == "baseline"
    assert results["cls"]["OOD among all (%)"].strip("* ≈") == "22.0 ± 1.4"
    assert results["cls + mse"]["n"] == "2"
    assert results["cls + mse"]["OOD (%)"] == "**55.0 ± 7.1**"
    assert quality["cls + mse"]["AUROC, ID against OOD"] == "0.630 ± 0.028"
    shown = Words(page.read_text()).text
    assert "43.0 ± 4.2" in shown
    assert "0.630 ± 0.028" in shown
    summary = json.loads((folder / "cls-0" / "summary.json").read_text())
    for metric, head in (
        ("id_test_all_accuracy", "ID among all (%)"),
        ("all_harmonic_mean", "harmonic mean among all (%)"),
    ):
        assert results["teacher"][head] == f"{summary['teacher_metrics'][metric]:.1f}"
        assert float(lines[0][f"teacher_{metric}"]) == summary["teacher_metrics"][metric]
        assert float(lines[0][metric]) == summary[metric]


def test_the_closed_form_that_runs_begin_with_is_the_first_row_of_the_results(photo_runs, tmp_path):
    place = copied(photo_runs, tmp_path)
    path = place / "cls-0" / "summary.json"
    summary = json.loads(path.read_text())
    path.write_text(json.dumps({**summary, "closed_form": {"ood_test_accuracy": 41.25, "lambda": 1.0}}))
    (part,) = parts_of(collect(place).finished)
    table = main_table(part)
    first, *others = table.rows
    assert first.head == "closed form"
    assert first.cells[table.columns.index("OOD (%)") - 1].value == 41.25
    assert len(others) == len(part.groups) + len(part.teachers)
    assert not any(row.head.startswith("closed form") for row in others)


def test_means_of_the_weights_have_columns_beside_the_results(photo_runs, tmp_path):
    place = copied(photo_runs, tmp_path)
    path = place / "cls-0" / "summary.json"
    means = {"ema_ood_test_accuracy": 41.25, "averaged_ood_test_accuracy": 42.5}
    path.write_text(json.dumps({**json.loads(path.read_text()), **means}))
    (part,) = parts_of(collect(place).finished)
    table = main_table(part)
    for mean, accuracy in (("ema", 41.25), ("averaged", 42.5)):
        (at,) = [i for i, name in enumerate(table.columns) if name.endswith(f", {mean} weights")]
        assert [row.cells[at - 1].value for row in table.rows].count(accuracy) == 1


def test_runs_of_episodes_have_their_metrics_the_teacher_and_every_object(episode_runs, tmp_path):
    report(episode_runs, tmp_path / "report.html")
    first, second = (json.loads((episode_runs / f"mse-{i}" / "summary.json").read_text()) for i in (0, 1))
    results, decisions = tables_of((tmp_path / "report.md").read_text())
    student = next(head for head in results if head not in ("setting", "teacher") and "mse" in head)
    for metric, heading, table in (
        ("id_test_average_precision", "ID episodes (%)", results),
        ("ood_test_ood_objects_average_precision", "OOD episodes, OOD objects (%)", results),
        ("ood_test_recall", "OOD episodes: recall (%)", decisions),
    ):
        mean, std = (over([first[metric], second[metric]]) for over in (np.mean, lambda v: np.std(v, ddof=1)))
        # The best of a column is bold, as is what cannot be told from it.
        assert table[student][heading].strip("* ≈") == f"{mean:.1f} ± {std:.1f}"
        assert table["teacher"][heading] == f"{first['teacher_metrics'][metric]:.1f}"
    (part,) = parts_of(collect(episode_runs).finished)
    ood = per_class_tables(part)[0]
    assert ood.columns[:2] == ("object", "teacher (%)")
    for row in ood.rows:
        values = [one[OBJECTS]["ood_test"][row.head] for one in (first, second)]
        assert row.cells[0].value == pytest.approx(
            first[f"teacher_{OBJECTS}"]["ood_test"][row.head], abs=1e-5
        )
        assert row.cells[ood.columns.index(f"{student} (%)") - 1].value == pytest.approx(np.mean(values))
    text = Words((tmp_path / "report.html").read_text()).text
    assert "Average precision of every object" in text
    assert "No map" in text
    assert "Most confused" not in text
    lines = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert float(lines[0]["teacher_ood_test_average_precision"]) == pytest.approx(
        first["teacher_metrics"]["ood_test_average_precision"]
    )


def test_photos_and_episodes_in_one_folder_have_tables_of_their_own(photo_runs, episode_runs, tmp_path):
    shutil.copytree(photo_runs, tmp_path / "runs" / "photos")
    shutil.copytree(episode_runs, tmp_path / "runs" / "episodes")
    report(tmp_path / "runs", tmp_path / "report.html")
    tables = tables_of((tmp_path / "report.md").read_text())
    assert ["OOD among all (%)" in table["teacher"] for table in tables] == [True, False, False, False]
    assert ["OOD episodes, OOD objects (%)" in table["teacher"] for table in tables] == [
        False,
        False,
        True,
        False,
    ]
    page = (tmp_path / "report.html").read_text()
    names = re.findall(r' id="([^"]+)"', page)
    assert len(names) == len(set(names))
    assert {"results", "results-episodes", "photos-scatter", "episodes-scatter"} <= set(names)
    assert "is not data A" not in page
    lines = list(csv.DictReader((tmp_path / "report.csv").read_text().splitlines()))
    assert [bool(line["ood_test_average_precision"]) for line in lines] == [False] * 4 + [True] * 4


def test_every_teacher_has_its_own_row_column_and_star(photo_runs, tmp_path):
    folder = copied(photo_runs, tmp_path)
    for seed in (0, 1):
        run_folder = folder / f"mse-{seed}"
        config = (run_folder / "config.toml").read_text()
        (run_folder / "config.toml").write_text(config.replace('text = "labels"', 'text = "descriptions"'))
        summary = json.loads((run_folder / "summary.json").read_text())
        summary["teacher_metrics"] |= {"id_test_accuracy": 11.0, "ood_test_accuracy": 22.0}
        summary["teacher_per_class_accuracy"]["ood_test"]["lemon"] = 7.0
        (run_folder / "summary.json").write_text(json.dumps(summary))
    (part,) = parts_of(collect(folder).finished)
    table = main_table(part)
    at = [table.columns.index(heading) - 1 for heading in ("ID (%)", "OOD (%)")]
    teachers = {row.head: [row.cells[i].text for i in at] for row in table.rows if row.style is None}
    assert teachers.keys() == {"teacher, text=labels", "teacher, text=descriptions"}
    assert teachers["teacher, text=descriptions"] == ["11.0", "22.0"]
    ood = per_class_tables(part)[0]
    assert ood.columns[2:4] == ("teacher, text=labels (%)", "teacher, text=descriptions (%)")
    lemon = next(row for row in ood.rows if row.head == "lemon")
    assert lemon.cells[2].text == "7.0"
    assert lemon.cells[1].text != "7.0"
    drawn = scatter_charts(part)[0]
    assert [s["label"] for s in drawn.data["series"]][2:] == list(teachers)


def test_a_spreadsheet_takes_no_name_for_a_formula(photo_runs, tmp_path):
    folder = copied(photo_runs, tmp_path)
    (folder / "cls-0").rename(folder / "=1+1")
    lines = list(csv.DictReader(as_csv(collect(folder).finished).splitlines()))
    assert "'=1+1" in [line["run"] for line in lines]


def test_what_was_learnt_from_a_few_images_is_a_table_of_every_method_and_number_of_shots(
    photo_runs, tmp_path
):
    runs = shutil.copytree(photo_runs, tmp_path / "runs")
    row = {"shots": 2, "draws": 3, "before": 40.0, "ood_query": 51.25, "ood_query_std": 1.5, "id_test": None}
    for method, table in {
        "project": [row],
        "retrieval": [row | {"before": "40"}],
        "finetune": "none",
    }.items():
        (runs / "cls-0" / f"fewshot-{method}").mkdir()
        text = json.dumps({"method": method, "table": table})
        (runs / "cls-0" / f"fewshot-{method}" / "fewshot.json").write_text(text)
    (runs / "cls-1" / "fewshot-project").mkdir()
    (runs / "cls-1" / "fewshot-project" / "fewshot.json").write_text("no JSON")
    report(runs, tmp_path / "report.html")
    lines = (tmp_path / "report.md").read_text().splitlines()
    assert [line for line in lines if "cls-0, " in line] == [
        "| cls-0, project, 2 | 40.0 | 51.2 ± 1.5 |  | 3 |",
        "| cls-0, retrieval, 2 |  | 51.2 ± 1.5 |  | 3 |",
    ]
    assert "Few-shot" in (tmp_path / "report.html").read_text()
