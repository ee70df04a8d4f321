"""What runs write for other programs: metrics.csv, and Weights & Biases without a network."""

from __future__ import annotations

import contextlib
import csv
import json
import socket
import subprocess
import sys

import pytest
from click.testing import CliRunner
from conftest import ROOT, make_cache, make_photos
from helpers.processes import torchrun
from helpers.runs import BASE, SMALL, StopAt, numbers, stage_2

import cli
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.record.boards import Boards
from distill.settings import with_settings
from distill.sweep.plan import load_sweep
from distill.sweep.run import Place, train_command
from distill.train.start import train as run
from distill.train.stopping import Stopped


@pytest.fixture
def offline(monkeypatch):
    """W&B as it is without a network; that none is tried, a server and proxy that nobody may call proves."""
    pytest.importorskip("wandb", reason="needs the extra 'wandb'")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_ERROR_REPORTING", raising=False)  # which the program itself switches off
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        for name in ("WANDB_BASE_URL", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"):
            monkeypatch.setenv(name, address)
        yield
        written()
        server.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            caller, _ = server.accept()
            with caller:
                caller.settimeout(10)
                pytest.fail(f"the network was tried: {caller.recv(2000)!r}")


def written():
    """Wait until W&B's own process has written all: a run that is finished may still be in its queue."""
    import wandb

    wandb.teardown()


def chunks(data):
    """Every record's bytes of a W&B file: a LevelDB log in blocks of 32 KiB, behind a header of 7 bytes."""
    at, whole = 7, b""
    while at + 7 <= len(data):
        left = 32768 - at % 32768
        if left < 7:  # a block's end has no room for a record's header
            at += left
            continue
        length, chunk_type = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if chunk_type in (1, 4):  # the whole of a record, or its last part
            yield whole
            whole = b""


def records(folder):
    """Every record of the W&B files below a run's folder, one file after the other."""
    from wandb.proto import wandb_internal_pb2

    written()
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb")):
        for chunk in chunks(path.read_bytes()):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(chunk)
            yield record


def history(folder):
    """The logged epochs, each as numbers by name."""
    rows = []
    for record in records(folder):
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append(
                {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
            )
    return rows


def summary_of(folder):
    """The summary, as it is after all its changes."""
    summary = {}
    for record in records(folder):
        if record.WhichOneof("record_type") == "summary":
            items = record.summary.update
            summary |= {i.key or ".".join(i.nested_key): json.loads(i.value_json) for i in items}
    return summary


def ids(folder):
    return {r.run.run_id for r in records(folder) if r.WhichOneof("record_type") == "run"}


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, *settings])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of seven epochs that was never stopped, to be read."""
    root = tmp_path_factory.mktemp("whole")
    photos = make_photos(root / "photos")
    cached = make_cache(root / "cache", photos, captions=True)
    run(config("train.epochs=7"), cache_dir=cached.path, data_dir=photos, out=root / "run")
    return root / "run"


def test_metrics_csv_has_the_numbers_of_every_epoch(whole):
    with open(whole / "metrics.csv", newline="") as file:
        table = list(csv.DictReader(file))
    lines = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert len(table) == 7
    for row, line in zip(table, lines, strict=True):
        assert {name: float(value) for name, value in row.items() if value} == line
    assert table[0]["id_test_accuracy"] == ""  # judged in the last five epochs alone
    assert table[6]["id_test_accuracy"] != ""


def without_speed(path):
    with open(path, newline="") as file:
        return [{k: v for k, v in row.items() if k != "images_per_s"} for row in csv.DictReader(file)]


def test_metrics_csv_of_a_resumed_run_is_that_of_an_uninterrupted_one(whole, cached, photos, tmp_path):
    where = {"cache_dir": cached.path, "data_dir": photos}
    with pytest.raises(Stopped):
        run(config("train.epochs=7"), **where, out=tmp_path / "cut", progress=StopAt(30))
    before = without_speed(tmp_path / "cut" / "metrics.csv")
    run(config("train.epochs=7"), **where, out=tmp_path / "cut", resume_run=True)
    assert 0 < len(before) < 7
    assert without_speed(tmp_path / "cut" / "metrics.csv") == without_speed(whole / "metrics.csv")


def test_every_epoch_and_the_summary_are_in_the_file_that_wandb_syncs(cached, photos, tmp_path, offline):
    out = tmp_path / "runs" / "first"
    settings = [part for setting in SMALL for part in ("--set", setting)]
    words = ["train", cached.path, "--data", photos, "--out", out, *settings, "--wandb", "students"]
    words += ["--recipe", "paper-resnet18"]
    ended = CliRunner().invoke(cli.main, [str(word) for word in words])
    assert ended.exit_code == 0, ended.output
    logged = history(out)
    assert [line["epoch"] for line in logged] == [1, 2, 3]
    for line, written in zip(logged, numbers(out), strict=True):
        assert line["loss/total"] == pytest.approx(written["loss_total"])
        assert line["ood_test_accuracy"] == pytest.approx(written["ood_test_accuracy"])
    (begun,) = [r.run for r in records(out) if r.WhichOneof("record_type") == "run"]
    assert (begun.project, begun.display_name, begun.run_group) == ("students", "first", "")
    settings = {item.key: json.loads(item.value_json) for item in begun.config.update}
    assert settings["train"]["epochs"] == 3
    summary, kept = json.loads((out / "summary.json").read_text()), summary_of(out)
    assert kept["ood_test_accuracy"] == pytest.approx(summary["ood_test_accuracy"])  # a mean over epochs
    assert kept["teacher_accuracy/ood_test"] == pytest.approx(summary["teacher_accuracy"]["ood_test"])
    assert (kept["status"], kept["versions/torch"]) == ("finished", summary["versions"]["torch"])
    for name, value in summary["space"]["ood_test"].items():
        assert kept[f"space/ood_test/{name}"] == pytest.approx(value)
    assert not [name for name in kept if "per_class" in name]


def test_a_resumed_run_goes_on_in_the_same_wandb_run(cached, photos, tmp_path, offline):
    out = tmp_path / "run"
    where = {"cache_dir": cached.path, "data_dir": photos, "out": out, "boards": Boards(wandb="students")}
    with pytest.raises(Stopped):
        run(config(), **where, progress=StopAt(30))
    run(config(), **where, resume_run=True)
    assert len(ids(out)) == 1
    assert [line["epoch"] for line in history(out)] == [1, 2, 3]


def test_students_trained_together_have_a_wandb_run_each(cached, photos, tmp_path, offline):
    path = tmp_path / "mine.toml"
    path.write_text(BASE + "[grid]\nloss.mse = [0, 1]\n")
    where = ["--cache", str(cached.path), "--data", str(photos), "--out", str(tmp_path / "mine")]
    ended = CliRunner().invoke(cli.main, ["sweep", str(path), *where, "--together", "--wandb", "students"])
    assert ended.exit_code == 0, ended.output
    folders = [tmp_path / "mine" / f"mse={k},seed=0" for k in (0, 1)]
    assert len(ids(folders[0]) | ids(folders[1])) == 2
    for folder in folders:
        assert [line["epoch"] for line in history(folder)] == [1, 2]
        (begun,) = [r.run for r in records(folder) if r.WhichOneof("record_type") == "run"]
        assert (begun.display_name, begun.run_group) == (folder.name, "mine")


def test_of_the_processes_of_torchrun_the_first_alone_writes_to_wandb(cached, photos, tmp_path, offline):
    out = tmp_path / "run"
    words = stage_2(photos, cached.path, out, "student.arch=timm:test_vit", "train.epochs=2")
    command = torchrun(*words, "--wandb", "students")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert len(list(out.glob("wandb/offline-run-*"))) == 1
    assert [line["epoch"] for line in history(out)] == [1, 2]


@pytest.mark.parametrize("project", ["", "students"])
def test_a_sweep_hands_the_project_on_to_the_processes_of_its_runs(tmp_path, project):
    path = tmp_path / "mine.toml"
    path.write_text(BASE + "[grid]\nloss.mse = [0]\n")
    (planned,) = load_sweep(str(path)).runs
    place = Place(cache=tmp_path, data=tmp_path, out=tmp_path / "runs", boards=Boards(wandb=project))
    words = train_command(planned, place)
    assert words[words.index("--wandb") + 1 :][:1] == [project] if project else "--wandb" not in words


def test_a_board_that_cannot_begin_is_one_line_and_leaves_no_run(
    cached, photos, tmp_path, offline, monkeypatch
):
    pytest.importorskip("mlflow", reason="needs the extra 'mlflow'")
    where = {"cache_dir": cached.path, "data_dir": photos, "out": tmp_path / "run"}
    boards = Boards(wandb="students", mlflow="students")
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # the proxy of offline is nobody's
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for wandb_mode, why in (
        ("offline", r"MLflow cannot begin .*set MLFLOW_TRACKING_URI"),  # W&B has begun by then
        ("ofline", r"Weights & Biases cannot begin .*ofline"),
    ):
        monkeypatch.setenv("WANDB_MODE", wandb_mode)
        with pytest.raises(UserError, match=why) as caught:
            run(config(), **where, boards=boards)
        assert "\n" not in str(caught.value)
        written()
        assert not where["out"].exists()


def test_a_run_that_is_not_told_to_leaves_wandb_alone(cached, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it would fail
    run(config("train.epochs=1"), cache_dir=cached.path, data_dir=photos, out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("wandb*"))


def test_without_the_package_nothing_is_begun(cached, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=r'pip install "\.\[wandb\]"'):
        run(
            config(),
            cache_dir=cached.path,
            data_dir=photos,
            out=tmp_path / "run",
            boards=Boards(wandb="students"),
        )
    assert not (tmp_path / "run").exists()


def test_without_the_package_no_run_of_a_sweep_is_begun(cached, photos, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    path, out = tmp_path / "mine.toml", tmp_path / "mine"
    path.write_text(BASE + "[grid]\nloss.mse = [0, 1]\n")
    where = ["--cache", str(cached.path), "--data", str(photos), "--out", str(out)]
    ended = CliRunner().invoke(cli.main, ["sweep", str(path), *where, "--wandb", "students"])
    assert ended.exit_code == 1
    assert 'pip install ".[wandb]"' in ended.output
    assert not out.exists()
