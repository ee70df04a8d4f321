"""From photos and names to a model, in one command: with labels, without any, and whatever stops it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from conftest import COLOURS, ROOT, write_image
from helpers.processes import python

from cache import EmbeddingCache
from cli import main
from distill.deploy.info import ModelInfo
from distill.deploy.model import Model

NAMES = "apple\nbanana\ncherry\nlemon\nplum\n"
# A student that begins with random weights: what is tested is not how good it is.
SMALL = ["--arch", "timm:test_resnet", "--start", "scratch", "--device", "cpu"]
CLOSED_FORM_ALONE = ["--budget", "1s"]


@pytest.fixture
def asked(tmp_path, photos, teacher_dir, forked):
    """The words of a command for ``photos`` of five names, some of them labelled."""
    (tmp_path / "names.txt").write_text(NAMES)
    (photos / "label2text.txt").unlink()
    words = ["adapt", photos, "--names", tmp_path / "names.txt", "--out", tmp_path / "model"]
    return [*map(str, words), "--model", f"local-dir:{teacher_dir}", *SMALL]


@pytest.fixture
def unlabelled(photos):
    """The same photos in one folder, called as nothing."""
    for number, path in enumerate(sorted(photos.glob("*/*/*.jpg"))):
        shutil.move(path, photos / f"{number}.jpg")
    for folder in ("train", "val_on_train", "val"):
        shutil.rmtree(photos / folder)
    return photos


def run(*words, status=0):
    done = CliRunner().invoke(main, [*map(str, words)])
    assert done.exit_code == status, done.output
    return done


def outcome(asked):
    return json.loads(run(*asked, "--json").stdout)


@pytest.mark.long
def test_photos_and_names_become_a_model_that_is_judged_and_that_research_goes_on_from(
    asked, tmp_path, photos
):
    made, model = outcome(asked), tmp_path / "model"
    info = ModelInfo.load(model)
    assert {*info.id_classes, *info.ood_classes} == {*NAMES.split()}
    assert made["splits"].keys() == {"id_test", "ood_test", "id_val"}
    assert made["splits"]["id_test"].keys() >= {"closed-form", "run", "teacher", "all_accuracy", "all_ece"}
    assert made["not_measured"] == []
    assert made["latency_ms"]["p50"] > 0
    assert all(Path(path).exists() for path in made["files"].values()), made["files"]
    answers = run("predict", model, photos / "val" / "plum" / "val_0.jpg", "--format", "jsonl").stdout
    assert {label["label"] for label in json.loads(answers)["labels"]} == {*NAMES.split()}
    run("evaluate", model / "work" / made["shipped"])
    run("cache", "verify", model / "work" / "cache")


def test_without_the_packages_that_write_a_model_it_is_said_before_the_teacher_looks(
    asked, tmp_path, monkeypatch
):
    elsewhere = [str(tmp_path), *(path for path in sys.path if "-packages" not in path)]
    monkeypatch.setattr(sys, "path", elsewhere)
    monkeypatch.delitem(sys.modules, "onnx", raising=False)
    done = run(*asked, status=1)
    assert """onnx is not installed. Fix: run 'pip install ".[export]"'""" in done.stderr
    assert not (tmp_path / "model").exists()


@pytest.mark.long
def test_without_a_single_label_the_teachers_answers_are_the_yardstick_and_that_is_said(
    asked, unlabelled, tmp_path
):
    done = run(*asked, *CLOSED_FORM_ALONE)
    splits = json.loads((tmp_path / "model" / "model.json").read_text())["measured"]["float32"]["splits"]
    assert splits.keys() == {"pool_val"}
    assert "as the teacher answers" in done.stdout
    assert "how often either is right was not measured" in done.stdout
    assert "not measured: how often it is right on names that no label was learnt of" in done.stdout
    card = (tmp_path / "model" / "README.md").read_text()
    assert "how often the student answers as its teacher, right or wrong" in card
    cache = EmbeddingCache.open(tmp_path / "model" / "work" / "cache")
    assert cache.split_names == ("pool",)
    summary = json.loads((tmp_path / "model" / "work" / "closed-form" / "summary.json").read_text())
    assert summary["closed_form"]["chosen_by"] == "cosine on a held-out tenth"


@pytest.mark.long
def test_the_same_command_does_nothing_twice_and_more_photos_are_learnt_from(asked, tmp_path, photos):
    run(*asked)
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "model").glob("work/*/*.pt")}
    model = (tmp_path / "model" / "model.onnx").stat().st_mtime_ns
    again = run(*asked)
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert (tmp_path / "model" / "model.onnx").stat().st_mtime_ns == model
    assert "going on with what was begun" in again.stderr
    assert "changed" not in again.stderr
    import numpy as np

    write_image(photos / "train" / "apple" / "one_more.jpg", COLOURS["apple"], np.random.default_rng(9))
    more = run(*asked, "--seed", "1")
    assert "changed: --seed was 0, and is 1; what depends on that is made anew" in more.stderr
    assert "the teacher looked at 1 photos" in more.stderr
    assert (tmp_path / "model" / "model.onnx").stat().st_mtime_ns != model


@pytest.mark.long
def test_a_budget_without_room_for_an_epoch_gives_the_closed_form(asked, tmp_path):
    done = run(*asked, *CLOSED_FORM_ALONE)
    assert "no epoch fits into the budget of 1 s" in done.stderr
    info = ModelInfo.load(tmp_path / "model")
    assert info.source["run"] == "closed-form"
    assert {*info.id_classes, *info.ood_classes} == {*NAMES.split()}
    assert "next: distill predict" in done.stdout
    assert not (tmp_path / "model" / "work" / "run").exists()


@pytest.mark.long
def test_a_finished_cache_is_taken_with_its_names_and_photos(cached, photos, tmp_path, forked):
    done = run(
        "adapt", photos, "--cache", cached.path, "--out", tmp_path / "model", *SMALL, *CLOSED_FORM_ALONE
    )
    assert "the closed form" in done.stdout
    assert not (tmp_path / "model" / "work" / "cache").exists()
    wrong = run("adapt", "--cache", cached.path, "--names", "a,b", "--out", tmp_path / "m", status=2)
    assert "--cache has its names already" in wrong.stderr


@pytest.mark.long
def test_a_cache_that_keeps_a_text_tower_gives_a_model_that_names_anything(trained, tmp_path):
    model = tmp_path / "model"
    run("adapt", "--cache", trained / "cache", "--out", model, *SMALL, "--budget", "10m")
    assert ModelInfo.load(model).vocabulary >= 20_000
    photo = next((trained / "photos" / "val").glob("*/*.jpg"))
    assert "labels, best first" in run("predict", model, photo, "--open").stdout


STAGES = [
    "the teacher:",
    "features of",
    "checking",
    "can be used",
    "trained head: ",
    "the trained head",
    "training the trunk",
    "report and latency",
]


@pytest.mark.long
def test_killed_in_any_stage_the_same_command_ends_as_if_it_never_was(asked, tmp_path, photos, teacher_dir):
    whole = outcome(asked)
    shutil.move(tmp_path / "model", tmp_path / "whole")
    for stage in STAGES:
        words = [stage, tmp_path / "model", photos, tmp_path / "names.txt", teacher_dir]
        command = [*python(), str(ROOT / "tests" / "helpers" / "killed_at.py"), *map(str, words)]
        killed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
        assert killed.returncode == -9, killed.stderr
        if (tmp_path / "model" / "model.json").exists():  # then it is a model
            Model.open(tmp_path / "model")
    made = outcome(asked)
    for one in (made, whole):
        one.pop("latency_ms"), one.pop("seconds")
    assert made == whole


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["--names", "one.txt"], 1, "is one name alone"),
        (["--names", "nowhere.txt"], 2, "cannot be read"),
        ([], 2, "there are no --names"),
        (["--names", "names.txt", "--budget", "soon"], 2, "is no time: write it like 10m"),
        (
            ["--names", "names.txt", "--out", "photos/model"],
            2,
            "lies in photos, all pictures of which are learnt from",
        ),
        (["--names", "names.txt", "--out", "full"], 1, "and no adaptation was begun in it"),
        (["--names", "names.txt", "--start", "nowhere.pt"], 1, "nowhere.pt does not exist"),
        (["--names", "names.txt", "--model", "ViT-B-32", "--pretrained", ""], 2, "needs --pretrained"),
    ],
)
def test_what_is_wrong_is_one_line_before_any_work_is_done(here, photos, teacher_dir, words, status, said):
    Path("names.txt").write_text(NAMES)
    Path("one.txt").write_text("apple\n")
    Path("full").mkdir()
    Path("full/mine").touch()
    begun = ["adapt", "photos", "--out", "model", "--model", f"local-dir:{teacher_dir}", *SMALL]
    done = run(*begun, *words, status=status)
    errors = [line for line in done.stderr.splitlines() if line.startswith("Error: ")]
    assert len(errors) == 1
    assert said in errors[0]
    assert not Path("model").exists()


def test_what_is_refused_leaves_nothing_and_is_no_beginning(here, photos, teacher_dir):
    Path("names.txt").write_text(NAMES)
    Path("few").mkdir()
    shutil.copy(next(photos.glob("*/*/*.jpg")), "few")
    words = ["adapt", "--out", "model", "--names", "names.txt", *SMALL, "--model"]
    assert "has 1 photo" in run(*words, f"local-dir:{teacher_dir}", "few", status=1).stderr
    Path("nothing").mkdir()
    assert "nothing" in run(*words, "local-dir:nothing", "photos", status=1).stderr
    assert not Path("model").exists()


def test_a_cache_without_texts_tells_no_names(tmp_path, photos):
    import numpy as np

    from cache.maintain.import_embeddings import import_embeddings
    from cache.maintain.imported import Imported

    keys = [str(path.relative_to(photos)) for path in sorted(photos.glob("*/*/*.jpg"))]
    rows = np.random.default_rng(0).normal(size=(len(keys), 8)).astype("float32")
    import_embeddings(tmp_path / "cache", Imported(keys=keys, embeddings=rows, texts=[], dtype="float32"))
    done = run("adapt", "--cache", tmp_path / "cache", "--out", tmp_path / "model", *SMALL, status=1)
    assert "has no texts of names (no text bank 'labels')" in done.stderr
