from __future__ import annotations

import json
from itertools import chain
from pathlib import Path

import numpy as np

import distill.demo
from cache.sources.data import open_data
from distill.demo.scenes import draw_dataset, draw_scene
from distill.demo.words import CLASSES, COLOURS, PATTERNS, SHAPES

TEACHER = Path(distill.demo.__file__).parent / "teacher"


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


def test_the_shipped_teacher_knows_ood_classes_in_pictures_it_never_saw(tmp_path):
    from cache.build.from_folder import FeatureOptions, cache_features
    from distill.judge.evaluate import evaluate_teacher

    draw_dataset(tmp_path / "data", seed=77, train_per_class=1, id_test_per_class=5, ood_test_per_class=5)
    cache_features(
        tmp_path / "data",
        tmp_path / "cache",
        FeatureOptions(model=f"local-dir:{TEACHER}", device="cpu", workers=0),
    )
    for text in ("labels", "descriptions"):
        results = evaluate_teacher(tmp_path / "cache", text=text)
        assert results["ood_test"].accuracy > 90
        assert results["id_test"].accuracy > 90


def test_the_demo_runs_and_goes_on_when_run_again(tmp_path, monkeypatch):
    from distill.demo import run as demo

    monkeypatch.setattr(
        demo,
        "draw_dataset",
        lambda out: draw_dataset(out, train_per_class=2, id_test_per_class=1, ood_test_per_class=1),
    )
    notes: list[str] = []
    first = demo.run_demo(tmp_path / "demo", epochs=1, seed=0, device="cpu", say=notes.append)
    assert set(first["accuracy"]) == {"teacher", "student, L-cls alone", "student, full method", "chance"}
    assert first["accuracy"]["chance"] == {"id_test": 2.0, "ood_test": 2.0}
    assert all(Path(where).exists() for where in first["files"].values())
    again = demo.run_demo(tmp_path / "demo", epochs=1, seed=0, device="cpu", say=notes.append)
    assert again["accuracy"] == first["accuracy"]
    assert notes.count("  trained already") == 2
