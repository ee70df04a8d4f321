from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.exported import invoke
from safetensors import safe_open

from cache.runtime.errors import UserError
from cache.runtime.progress import Silent
from cache.sources.data import open_data
from distill.demo.others import OTHER_CLASSES, OTHERS
from distill.demo.run import TEACHER, TRUNK, config_of, run_demo
from distill.demo.scenes import draw_dataset, draw_scene
from distill.demo.shapes import OWN
from distill.demo.unlabelled import draw_new, draw_pool, draw_unknown
from distill.demo.words import CLASSES, COLOURS, PATTERNS, SHAPES
from distill.judge.teachers import evaluate_teacher
from distill.student.build import build_student, made_of

GIVEN = {"epochs": 1, "seed": 0, "device": "cpu", "progress": Silent()}


def test_half_of_the_classes_are_ood_and_every_attribute_is_trained_on():
    trained = [shape for shape in CLASSES if shape.in_distribution]
    assert len(trained) == len(CLASSES) / 2
    for name, values in (("pattern", PATTERNS), ("colour", COLOURS), ("shape", SHAPES)):
        for held_out in (False, True):
            assert {getattr(shape, name) for shape in CLASSES if shape.in_distribution != held_out} == set(
                values
            )


def test_the_same_seed_draws_the_same_files_and_another_seed_others(tmp_path):
    sizes = {"train_per_class": 2, "id_test_per_class": 1, "ood_test_per_class": 1}
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        draw_dataset(tmp_path / name, seed=seed, **sizes)
    files = sorted(p.relative_to(tmp_path / "one") for p in (tmp_path / "one").rglob("*") if p.is_file())
    assert len(files) == 50 * 2 + 50 + 50 + 3
    assert all((tmp_path / "one" / f).read_bytes() == (tmp_path / "two" / f).read_bytes() for f in files)
    assert any((tmp_path / "one" / f).read_bytes() != (tmp_path / "three" / f).read_bytes() for f in files)
    folder = open_data([tmp_path / "one"])
    captions = [json.loads(line) for line in (tmp_path / "one" / "captions.jsonl").read_text().splitlines()]
    keys = {line["key"] for line in captions}
    disk = {"train": "train", "id_test": "val_on_train", "ood_test": "val"}
    assert keys == set(
        chain.from_iterable((f"{disk[n]}/{i.key}" for i in s.all()) for n, s in folder.splits.items())
    )


def test_pictures_of_one_class_differ():
    rng = np.random.default_rng(0)
    one, two = (draw_scene(CLASSES[0], rng) for _ in range(2))
    assert one.pixels.shape == (64, 64, 3)
    assert np.abs(one.pixels.astype(int) - two.pixels).mean() > 5


def test_the_shipped_teacher_is_small():
    assert sum(file.stat().st_size for file in TEACHER.iterdir()) < 10e6


def test_what_the_trunk_was_trained_on_has_no_pattern_colour_or_shape_of_the_demos_classes():
    for own, others in (
        (OWN.patterns, OTHERS.patterns),
        (OWN.colours, OTHERS.colours),
        (OWN.shapes, OTHERS.shapes),
    ):
        assert not {*own} & {*others}
    assert not {one.folder for one in CLASSES} & {one.folder for one in OTHER_CLASSES}
    near = 30  # of 255 in every channel: about what one colour differs by from picture to picture
    for own in OWN.colours.values():
        assert all(np.abs(np.subtract(own, other)).max() > near for other in OTHERS.colours.values())
    u, v = np.meshgrid(*[np.linspace(-1, 1, 65)] * 2)
    for own in OWN.shapes.values():
        for other in OTHERS.shapes.values():
            one, two = own(u, v) < 0, other(u, v) < 0
            assert (one & two).sum() < 0.9 * (one | two).sum()


def test_the_shipped_trunk_is_small_says_what_it_is_of_and_is_where_the_students_weights_come_from():
    config = config_of(epochs=1, seed=0, device="cpu").student
    assert TRUNK.stat().st_size < 2e6
    with safe_open(TRUNK, framework="pt") as opened:
        about = opened.metadata()
        kept = opened.get_tensor("conv1.0.weight")
    assert {"license", "trained_on", "command"} <= about.keys()
    assert about["arch"] == config.arch
    given = {"embed_dim": 64, "image_size": config.image_size, "start": config.start}
    student = build_student(config.arch, **given)
    assert torch.equal(student.state_dict()["conv1.0.weight"], kept.float())
    assert made_of(student).normalisation.to_json() == json.loads(about["input"])


def test_the_pool_shows_every_class_and_what_is_unknown_none(tmp_path):
    draw_pool(tmp_path / "data", per_class=1, others=5)
    draw_unknown(tmp_path / "unknown", count=3)
    draw_new(tmp_path / "new.jpg", CLASSES[0])
    names = sorted(file.name for file in (tmp_path / "data" / "pool").iterdir())
    assert names == [f"{number:05d}.jpg" for number in range(len(CLASSES) + 5)]
    assert len([*(tmp_path / "unknown").iterdir()]) == 3
    files = [file.read_bytes() for file in tmp_path.rglob("*.jpg")]
    assert len({*files}) == len(files)


@pytest.fixture(scope="module")
def of_demo(tmp_path_factory):
    """A demo of few pictures, drawn by another seed than its own, and what it returned."""
    out = tmp_path_factory.mktemp("of_demo") / "demo"
    draw_pool(out / "data", per_class=1, others=2)
    draw_unknown(out / "unknown", count=2)
    draw_dataset(out / "data", seed=77, train_per_class=2, id_test_per_class=5, ood_test_per_class=5)
    return out, run_demo(out, **GIVEN)


def test_the_shipped_teacher_knows_ood_classes_in_pictures_it_never_saw(of_demo):
    for text in ("labels", "descriptions"):
        results = evaluate_teacher(Path(of_demo[1]["files"]["cache"]), text=text)
        assert results["ood_test"].accuracy > 90
        assert results["id_test"].accuracy > 90


def test_the_demo_makes_a_model_that_is_asked(of_demo):
    result = of_demo[1]
    accuracy = result["accuracy"]
    assert list(accuracy) == ["teacher", "head by ridge", "trained student", "chance"]
    assert list(accuracy["chance"].values()) == [2.0, 2.0, 1.0, 1.0]
    assert min(accuracy["head by ridge"].values()) > 20
    assert {*result["calibration"]} == {"id_test", "ood_test"}
    assert "2 of unknown" in result["none_of_these"]
    assert len(result["asked"]["answers"]) == 3
    assert all(Path(where).exists() for where in result["files"].values())


def test_run_again_the_demo_makes_nothing_anew_and_refuses_other_settings(of_demo):
    out, result = of_demo
    kept = {file: file.stat().st_mtime_ns for file in [*out.rglob("*.onnx"), *out.glob("data/**/*.jpg")]}
    assert run_demo(out, **GIVEN) == result
    assert all(file.stat().st_mtime_ns == when for file, when in kept.items())
    with pytest.raises(UserError, match=r"is of 1 epochs and seed 0, not 2 and 0.*another --out"):
        run_demo(out, **{**GIVEN, "epochs": 2})


def test_a_folder_of_other_things_is_left_as_it_is(tmp_path):
    (tmp_path / "data").mkdir()
    done = invoke("demo", "--out", tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (1, 1)
    assert "holds other files (data), and no demo was begun in it. Fix: choose another --out" in done.stderr
    assert [*tmp_path.rglob("*")] == [tmp_path / "data"]
