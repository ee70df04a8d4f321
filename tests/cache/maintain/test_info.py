"""What is in a cache is said without reading a row."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import ROOT
from helpers.row_groups import make_rows

from cache.maintain.info import describe_cache
from cache.store.journal import Journal
from cli import main


def test_groups_rows_columns_and_their_sizes_are_counted(whole):
    told = describe_cache(whole / "hdf5")
    journal = Journal.load(whole / "hdf5")
    (train,) = [split for split in told.splits if split.split == "train"]
    assert (train.rows, train.removed, train.classes) == (24, 0, 3)
    assert train.groups == len(journal.groups("train")) > 1
    assert train.own_captions == 16
    columns = {column.column: column for column in told.columns}
    assert columns["crop_views"].settings["views"] == 2
    assert columns["crop_views"].groups == columns["crop_views"].of == train.groups
    assert columns["keys"].rows == sum(split.rows for split in told.splits)
    assert sum(column.bytes for column in told.columns) == sum(line.bytes for line in journal.files.values())
    assert sum(told.made_with.values()) == len(journal.all_groups)
    assert "batch_size 8" in next(iter(told.made_with))


def test_the_command_says_it_as_text_and_as_json(whole):
    text = CliRunner().invoke(main, ["cache", "info", str(whole / "hdf5")]).stdout
    for word in (
        "own captions",
        "crop_views",
        "24",
        "labels",
        "writers: main",
        "device cpu",
        "pixels",
        "in all",
    ):
        assert word in text
    assert f"images from: {whole / 'photos'}" in text
    told = json.loads(CliRunner().invoke(main, ["cache", "info", str(whole / "hdf5"), "--json"]).stdout)
    assert told["complete"]
    assert {column["column"] for column in told["columns"]} >= {"keys", "image_embedding", "pixels"}
    assert told["named_sources"] == [{"source": str(whole / "photos"), "there": True}]


def test_every_column_says_whose_it_is_and_what_made_it(whole):
    told = describe_cache(whole / "hdf5")
    of = {column.column: column.teacher for column in told.columns}
    assert (of["image_embedding"], of["crop_views"], of["keys"], of["pixels"]) == ("main", "main", "", "")
    assert all("device cpu" in words for column in told.columns for words in column.made_with)
    assert all(sum(column.made_with.values()) == column.groups for column in told.columns)
    for one in (told, describe_cache(whole / "tar")):
        (main_teacher,) = one.every_teacher
        assert main_teacher.rows == sum(split.rows for split in one.splits)
        assert main_teacher.embed_dim == one.manifest.embed_dim
    assert told.bytes == sum(c.bytes for c in told.columns) + sum(file.bytes for file in told.manifest.files)


def test_it_needs_no_torch_and_reads_no_row(tmp_path):
    make_rows(tmp_path / "cache", {"train": [["a/0.jpg"], ["a/1.jpg"]]})
    shutil.rmtree(tmp_path / "cache" / "rows")
    code = (
        "import sys; sys.argv = ['distill', 'cache', 'info', sys.argv[1]]\n"
        "from cli import main\n"
        "main(standalone_mode=False)\n"
        "assert 'torch' not in sys.modules"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "cache")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "image_embedding" in ended.stdout


@pytest.mark.parametrize("damage", ["manifest.json", "journal/main.jsonl"])
def test_a_damaged_cache_is_one_line(tmp_path, damage):
    make_rows(tmp_path, {"train": [["a/0.jpg"]]})
    (tmp_path / damage).write_text('{"x": 1}\n')
    ended = CliRunner().invoke(main, ["cache", "info", str(tmp_path)])
    assert ended.exit_code == 1
    assert ended.stderr.count("\n") == 1
    assert "is damaged" in ended.stderr
