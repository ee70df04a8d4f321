"""What runs write to MLflow, read back from a store of files by MLflow's own client."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict

import pytest
from click.testing import CliRunner
from helpers.runs import BASE, SMALL, StopAt, numbers

import cli
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.record.boards import Boards
from distill.settings import flat, with_settings
from distill.train.start import train as run
from distill.train.stopping import Stopped

BOARDS = Boards(mlflow="students")


@pytest.fixture
def store(monkeypatch, tmp_path):
    pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    return tmp_path / "store"


def client():
    import mlflow

    return mlflow.MlflowClient()


def runs():
    experiment = client().get_experiment_by_name("students")
    return client().search_runs([experiment.experiment_id])


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, *settings])


def test_a_stopped_and_resumed_run_is_one_run_with_every_epoch_setting_and_the_summary(
    cached, photos, tmp_path, store
):
    out = tmp_path / "first"
    where = {"cache_dir": cached.path, "data_dir": photos, "out": out, "boards": BOARDS}
    with pytest.raises(Stopped):
        run(config(), **where, progress=StopAt(30))
    (begun,) = runs()
    assert begun.info.status == "KILLED"
    run(config(), **where, resume_run=True)
    (kept,) = runs()
    assert (kept.info.run_name, kept.info.status) == ("first", "FINISHED")
    assert kept.data.params == {name: str(value) for name, value in flat(asdict(config())).items()}
    written = numbers(out)
    for metric in ("loss/total", "grad_norm", "ood_test_accuracy"):
        there = {one.step: one.value for one in client().get_metric_history(kept.info.run_id, metric)}
        name = metric.replace("loss/", "loss_")
        assert there == pytest.approx({line["epoch"]: line[name] for line in written if name in line})
    summary = json.loads((out / "summary.json").read_text())
    assert kept.data.metrics["summary/ood_test_accuracy"] == pytest.approx(summary["ood_test_accuracy"])
    assert kept.data.tags["versions/torch"] == summary["versions"]["torch"]


def test_runs_of_a_sweep_carry_its_name(cached, photos, tmp_path, store):
    path = tmp_path / "mine.toml"
    path.write_text(BASE + "[grid]\nloss.mse = [0, 1]\n")
    where = ["--cache", str(cached.path), "--data", str(photos), "--out", str(tmp_path / "mine")]
    ended = CliRunner().invoke(cli.main, ["sweep", str(path), *where, "--together", "--mlflow", "students"])
    assert ended.exit_code == 0, ended.output
    assert {one.info.run_name: one.data.tags["sweep"] for one in runs()} == {
        "mse=0,seed=0": "mine",
        "mse=1,seed=0": "mine",
    }


def test_a_store_that_goes_away_stops_no_training(cached, photos, tmp_path, store, capsys):
    class Gone(StopAt):
        def advance(self, images):
            if store.is_dir():
                store.rename(tmp_path / "gone")
                store.touch()
            super().advance(images)

    out = tmp_path / "run"
    where = {"cache_dir": cached.path, "data_dir": photos, "out": out, "boards": BOARDS}
    run(config(), **where, progress=Gone(10**9))
    assert (out / "summary.json").is_file()
    said = capsys.readouterr().err
    assert "training goes on" in said
    assert "metrics.jsonl has all" in said


def test_without_the_package_nothing_is_begun(cached, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "mlflow", None)
    where = {"cache_dir": cached.path, "data_dir": photos, "out": tmp_path / "run"}
    with pytest.raises(UserError, match=r'pip install "\.\[mlflow\]"'):
        run(config(), **where, boards=BOARDS)
    assert not (tmp_path / "run").exists()
