"""A student judged zero-shot on images that no cache has rows of."""

import json
import shutil

import pytest
from click.testing import CliRunner

from cache.build.from_folder import FeatureOptions, cache_features
from cli import main

SMALL = ["--recipe", "smoke", "--arch", "timm:test_resnet", "--device", "cpu", "--epochs", "1"]


@pytest.fixture
def run(photos, tmp_path, teacher_dir):
    """A run of a cache that keeps its text tower, whose own images are gone."""
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, keep_text_tower=True)
    cache_features(photos, tmp_path / "cache", options)
    words = ["train", str(tmp_path / "cache"), "--out", str(tmp_path / "run"), *SMALL]
    trained = CliRunner().invoke(main, [*words, "--batch-size", "4", "--set", "data.workers=0"])
    assert trained.exit_code == 0, trained.output
    photos.rename(tmp_path / "own")
    return tmp_path / "run"


def judge(run, *words):
    return CliRunner().invoke(main, ["evaluate", str(run), "--device", "cpu", *map(str, words)])


def judged(run, *words):
    done = judge(run, *words, "--json")
    assert done.exit_code == 0, done.output + done.stderr
    return json.loads(done.stdout)


def renamed(tmp_path):
    """Class folders of names that the run's bank has no text of."""
    for old, new in (("lemon", "pear"), ("plum", "quince")):
        shutil.copytree(tmp_path / "own" / "val" / old, tmp_path / "other" / new)
    return tmp_path / "other"


def test_classes_of_the_bank_give_the_numbers_of_the_runs_own_test(run, tmp_path):
    elsewhere = judged(run, "--on", f"ood_test={tmp_path / 'own' / 'val'}")["on"]
    own = judged(run, "--data", tmp_path / "own")["ood_test"]
    assert elsewhere["per_class"] == own["per_class"]
    assert elsewhere["accuracy"] == own["accuracy"]
    assert elsewhere["text"] == "the text bank 'labels'"


def test_other_classes_are_told_by_the_kept_text_tower(run, tmp_path):
    one = judged(run, "--on", renamed(tmp_path), "--template", "a sketch of {}")["on"]
    assert (one["text"], one["images"]) == ("their names in 'a sketch of {}'", 6)
    assert one["per_class"].keys() == {"pear", "quince"}
    assert one["accuracy"] == pytest.approx(one["top1_accuracy"])  # of as many images each


def test_a_list_with_numbers_takes_its_names_from_a_file(run, tmp_path):
    folder = renamed(tmp_path)
    files = sorted(folder.rglob("*.jpg"))
    lines = [f"{file},{int(file.parent.name == 'quince')}" for file in files]
    (tmp_path / "list.csv").write_text("\n".join(["path,label", *lines]) + "\n")
    (tmp_path / "names.txt").write_text("pear\nquince\n")
    by_list = judged(run, "--on", tmp_path / "list.csv", "--names", tmp_path / "names.txt")
    assert by_list["on"]["per_class"] == judged(run, "--on", folder)["on"]["per_class"]


def test_a_source_that_cannot_be_judged_is_refused_in_one_line(run, tmp_path):
    pool = judge(run, "--on", f"pool={tmp_path / 'own' / 'val'}")
    assert (pool.exit_code, "has no labels" in pool.stderr) == (1, True)
    alone = judge(run, "--template", "a {}")
    assert (alone.exit_code, "--template is of --on" in alone.stderr) == (2, True)


def test_one_class_is_said_to_tell_nothing(run, tmp_path):
    shutil.copytree(tmp_path / "own" / "val" / "plum", tmp_path / "single" / "plum")
    done = judge(run, "--on", tmp_path / "single")
    assert (done.exit_code, "tells nothing" in done.stdout) == (0, True)
