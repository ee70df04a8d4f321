"""What runs write for other programs: metrics.csv, and Weights & Biases without a network."""

from __future__ import annotations

import csv
import json
import sys

import pytest
from click.testing import CliRunner
from test_sweep import BASE
from test_train import SMALL, StopAt, numbers

import cli
from cache.errors import UserError
from distill.config import RunConfig, with_settings
from distill.train import Stopped, run


@pytest.fixture
def offline(monkeypatch):
    """W&B as it is without a network: none is tried."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    return pytest.importorskip("wandb", reason="needs the extra 'wandb'")


def chunks(data):
    """Every record's bytes of a W&B file: a LevelDB log in blocks of 32 KiB, behind a header of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # a block's end has no room for a record's header
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # the whole of a record, or its last part
            yield whole
            whole = b""


def records(folder):
    """Every record of the W&B files below a run's folder, one file after the other."""
    from wandb.proto import wandb_internal_pb2

    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for chunk in chunks(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(chunk)
            yield record


def history(folder):
    """The logged epochs, each as numbers by name."""
    found = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            found.append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
    return found


def ids(folder):
    return {r.run.run_id for r in records(folder) if r.WhichOneof("record_type") == "run"}


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, *settings])


def test_metrics_csv_has_the_numbers_of_every_epoch(cached, photos, tmp_path):
    run(config("train.epochs=7"), cache_dir=cached.path, data_dir=photos, out=tmp_path / "run")
    with open(tmp_path / "run" / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert len(table) == 7
    for row, line in zip(table, lines, strict=True):
        assert {name: float(value) for name, value in row.items() if value} == line
    assert table[0]["id_test_accuracy"] == ""  # judged in the last five epochs alone
    assert table[6]["id_test_accuracy"] != ""


@pytest.mark.slow
def test_every_epoch_is_in_the_file_that_wandb_syncs(cached, photos, tmp_path, offline):
    out = tmp_path / "ablations" / "first"
    run(config(), cache_dir=cached.path, data_dir=photos, out=out, wandb="students")
    logged = history(out)
    assert [line["epoch"] for line in logged] == [0, 1, 2]
    for line, written in zip(logged, numbers(out), strict=True):
        assert line["loss/total"] == pytest.approx(written["loss_total"])
        assert line["ood_test_accuracy"] == pytest.approx(written["ood_test_accuracy"])
    (begun,) = [r.run for r in records(out) if r.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name, begun.run_group) == ("students", "first", "ablations")
    settings = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert settings["train"]["epochs"] == 3


@pytest.mark.slow
def test_a_resumed_run_goes_on_in_the_same_wandb_run(cached, photos, tmp_path, offline):
    out = tmp_path / "run"
    where = {"cache_dir": cached.path, "data_dir": photos, "out": out, "wandb": "students"}
    with pytest.raises(Stopped):
        run(config(), **where, progress=StopAt(30))
    run(config(), **where, resume_run=True)
    assert len(ids(out)) == 1
    assert [line["epoch"] for line in history(out)] == [0, 1, 2]


@pytest.mark.slow
def test_students_trained_together_have_a_wandb_run_each(cached, photos, tmp_path, offline):
    path = tmp_path / "mine.toml"
    path.write_text(BASE + "[grid]\nloss.mse = [0, 1]\n")
    where = ["--cache", str(cached.path), "--data", str(photos), "--out", str(tmp_path / "mine")]
    ended = CliRunner().invoke(cli.main, ["sweep", str(path), *where, "--together", "--wandb", "students"])
    assert ended.exit_code == 0, ended.output
    folders = [tmp_path / "mine" / f"mse={k},seed=0" for k in (0, 1)]
    assert len(ids(folders[0]) | ids(folders[1])) == 2
    for folder in folders:
        assert [line["epoch"] for line in history(folder)] == [0, 1]


def test_without_the_package_nothing_is_begun(cached, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r'pip install "distill\[wandb\]"'):
        run(config(), cache_dir=cached.path, data_dir=photos, out=tmp_path / "run", wandb="students")
    assert not (tmp_path / "run").exists()
