"""Runs of other data sets have rows of their own in a report, and a comparison says so first."""

from __future__ import annotations

import json
import shutil

import pytest

from cache.runtime.errors import UserError
from distill.report.collect import collect
from distill.report.compare import compare_runs
from distill.report.groups import groups_of
from distill.report.page import report
from distill.report.tables import main_table, per_class_tables
from distill.report.tasks import parts_of


def test_a_report_has_a_row_for_every_data_set_and_says_what_separates_them(made, tmp_path):
    collected = collect(made / "runs")
    (part,) = parts_of(collected.finished)
    groups = part.groups
    assert part.settings == ("data",)
    assert [(group.label, len(group.runs)) for group in groups] == [("data=A", 1), ("data=B", 1)]
    assert collected.other_data[False] == ("data B is not data A: ood_test: 4 images in B, 8 in A",)
    rows = main_table(part).rows
    assert [row.head for row in rows] == ["data=A", "data=B", "teacher, data=A", "teacher, data=B"]
    ood = next(table for table in per_class_tables(part) if table.title == "OOD")
    assert [row.cells[0].text for row in ood.rows] == ["4 or 2", "4 or 2"]
    report(made / "runs", tmp_path / "report.html")
    for ending in ("html", "md"):
        assert "ood_test: 4 images in B, 8 in A" in (tmp_path / f"report.{ending}").read_text()
    assert "| 2 |" not in (tmp_path / "report.md").read_text()


def test_runs_that_could_not_read_the_same_images_are_no_seeds_of_one_setting(made, tmp_path):
    for name, unread in (("one", {}), ("two", {"plum/val_0.jpg": "cut short"})):
        folder = shutil.copytree(made / "runs" / "all", tmp_path / name)
        summary = json.loads((folder / "summary.json").read_text())
        summary["unreadable_images"]["ood_test"] = unread
        (folder / "summary.json").write_text(json.dumps(summary))
    assert groups_of(collect(tmp_path).finished)[0] == ("data",)
    difference = "data B is not data A: ood_test: 1 images could not be read in B, 0 in A"
    assert collect(tmp_path).other_data == {False: (difference,), True: ()}


def test_a_summary_with_an_identity_that_is_none_is_named_and_left_out(made, tmp_path):
    folder = shutil.copytree(made / "runs" / "all", tmp_path / "runs" / "one")
    shutil.copytree(made / "runs" / "half", tmp_path / "runs" / "two")
    summary = json.loads((folder / "summary.json").read_text())
    (folder / "summary.json").write_text(json.dumps({**summary, "data": {"teachers": 3}}))
    collected = collect(tmp_path / "runs")
    assert [run.name for run in collected.finished] == ["two"]
    assert "the data of the run is not there" in collected.unreadable[0][1]


def test_compare_says_first_that_other_images_were_judged(made):
    compared = compare_runs(made / "runs" / "all", made / "runs" / "half")
    assert compared.surroundings[:2] == (
        "the results are not comparable: they are of other test images",
        "data: ood_test: 4 images in the second, 8 in the first",
    )
    with pytest.raises(UserError, match=r"more than the seed \(data; ood_test: 4 images in half, 8 in all\)"):
        compare_runs(made / "runs", made / "runs" / "all")
