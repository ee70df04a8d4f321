"""Classes set aside to choose on: by their names, never trained on, judged among themselves."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from conftest import ID_CLASSES, make_cache, write_image
from helpers.runs import BASE, SMALL, lines

from cache.runtime.errors import UserError
from cli import main
from distill.config import RunConfig
from distill.data.class_val import classes_aside
from distill.judge.open_run import evaluate_run
from distill.settings import with_settings
from distill.train.run_folder import chosen_number
from distill.train.session import open_session
from distill.train.start import train

NAMES = (*ID_CLASSES, "damson", "elderberry", "fig")


def test_classes_are_set_aside_by_their_names_whatever_else_there_is():
    names = [f"class {i}" for i in range(200)]
    aside = classes_aside(names, 0.2)
    assert len(aside) == pytest.approx(40, abs=12)
    assert set(classes_aside(names[:150], 0.2)) == set(aside) & set(names[:150])
    assert set(classes_aside(names[::-1], 0.2)) == set(aside)
    assert classes_aside(names, 0) == ()
    assert len(classes_aside(names[:4], 0.01)) == len(classes_aside(names[:4], 0.99)) == 2
    with pytest.raises(UserError, match="3 classes are too few"):
        classes_aside(names[:3], 0.5)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """``photos`` of six ID classes and their ``cache``, to be read."""
    root, rng = tmp_path_factory.mktemp("classes"), np.random.default_rng(0)
    for split, names in (("train", NAMES), ("val_on_train", NAMES), ("val", ("lemon", "plum"))):
        for number, name in enumerate(names):
            for i in range(3):
                colour = (40 * number, 200 - 30 * number, 90)
                write_image(root / "photos" / split / name / f"{split}_{i}.jpg", colour, rng)
    make_cache(root / "cache", root / "photos")
    return root


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, "loss.cap=0", "train.epochs=1", *settings])


def test_classes_set_aside_are_not_trained_on_and_judged_every_time(place, tmp_path):
    settings = config("data.class_val=0.4", "train.epochs=2", "loss.vlalign_filter=true")
    aside = classes_aside(NAMES, 0.4)
    session = open_session(settings, cache_dir=place / "cache", data_dir=place / "photos")
    learnt = session.model.class_names
    assert set(learnt) == set(NAMES) - set(aside)
    joined = session.data.joined
    assert [learnt[label] for label in joined.labels] == [image.labels[0] for image in joined.images]
    split = session.splits["class_val"]
    assert (split.class_names, len(split.pixels.samples)) == (aside, 3 * len(aside))
    assert session.splits["id_test"].class_names == learnt
    summary = train(settings, cache_dir=place / "cache", data_dir=place / "photos", out=tmp_path / "run")
    told = [line["class_val_accuracy"] for line in lines(tmp_path / "run")]
    assert len(told) == 2
    assert summary["class_val_accuracy"] == pytest.approx(np.mean(told))
    assert (tmp_path / "run" / "best.pt").is_file()
    judged = evaluate_run(tmp_path / "run", splits=["class_val"], checkpoint="best")["class_val"]
    assert judged.accuracy == pytest.approx(max(told))
    assert list(judged.per_class) == list(aside)


def test_what_is_asked_for_chooses_and_else_id_val_before_class_val():
    line = {"id_val_accuracy": 1.0, "class_val_accuracy": 2.0, "ood_test_accuracy": 3.0}
    of_classes = {name: line[name] for name in ("class_val_accuracy", "ood_test_accuracy")}
    assert chosen_number("auto", line, "id_val_accuracy") == 1
    assert chosen_number("auto", of_classes, "id_val_accuracy") == 2
    assert chosen_number("class_val", line, "id_val_accuracy") == 2
    assert chosen_number("auto", {"ood_test_accuracy": 3.0}, "id_val_accuracy") is None
    with pytest.raises(UserError, match=r"data\.choose_by is class_val with data\.class_val=0"):
        config("data.choose_by=class_val")


def test_balanced_batches_have_alike_many_of_every_class_beside_a_pool_and_few_shot_images(place):
    settings = config("data.balanced=true", "train.batch_size=8", "fewshot.shots=1")
    session = open_session(settings, cache_dir=place / "cache", data_dir=place / "photos")
    seen = np.concatenate(session.batches_of(0))
    own = session.data.joined.labels[seen[seen < 18]]
    assert np.bincount(own, minlength=6).tolist() == [3] * 6


def test_a_sweep_names_the_point_that_is_best_on_what_was_set_aside(place, tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(BASE + "[grid]\noptim.lr = [0.01, 1e-9]\n")
    words = ["sweep", str(path), "--cache", str(place / "cache"), "--data", str(place / "photos")]
    words += ["--out", str(tmp_path / "runs"), "--together", "--choose", "class_val", "--json"]
    refused = CliRunner().invoke(main, words)
    assert refused.exit_code == 2
    assert "set no class_val aside" in refused.output
    ended = CliRunner().invoke(main, [*words, "--set", "data.class_val=0.4", "--set", "data.seed=0"])
    assert ended.exit_code == 0, ended.output
    runs = json.loads(ended.stdout)
    best = max(runs, key=lambda one: one["class_val_accuracy"])
    assert [one["chosen"] for one in runs] == [one is best for one in runs]
