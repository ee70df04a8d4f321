"""What a report shows of confused images and of the spaces: which pictures, and where."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

import numpy as np
import pytest

from distill.judge.outputs import (
    Answers,
    EmbeddingSample,
    RunOutputs,
)
from distill.report.collect import Run
from distill.report.groups import Group
from distill.report.pictures import Confused, confused_groups, principal_axes, space_map
from distill.train.outputs_of_run import pictures_to_keep


def answers_of(images):
    """Answers of an OOD split from (key, the class it was taken for); the class is in the key."""
    names = tuple(sorted({n for key, taken in images for n in (key.split("/")[0], taken)}))
    return Answers(
        keys=tuple(key for key, _ in images),
        labels=np.array([names.index(key.split("/")[0]) for key, _ in images], dtype=np.int32),
        predicted=np.array([names.index(taken) for _, taken in images], dtype=np.int32),
        class_names=names,
    )


def by_hash(keys):
    return sorted(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())


CONFUSED = [
    *((f"fox/{i}.jpg", "wolf") for i in range(8)),
    *((f"owl/{i}.jpg", "crow") for i in range(5)),
    *((f"owl/r{i}.jpg", "owl") for i in range(2)),
    *((f"wolf/{i}.jpg", "wolf") for i in range(6)),
    *((f"crow/{i}.jpg", "crow") for i in range(6)),
    *((f"newt/{i}.jpg", "newt") for i in range(3)),
]


def test_the_pictures_kept_are_the_first_of_each_confused_pair_and_one_of_what_it_was_taken_for():
    kept = pictures_to_keep(answers_of(CONFUSED))
    fox, owl = (
        by_hash([k for k, taken in CONFUSED if taken == name and k.split("/")[0] != name])
        for name in ("wolf", "crow")
    )
    like = [by_hash([key for key, _ in CONFUSED if key.startswith(name)])[0] for name in ("wolf/", "crow/")]
    assert kept[:6] == [*fox[:3], *owl[:3]]
    assert sorted(kept[6:]) == sorted(like)


def run_of(name, seed, *, outputs):
    return Run(
        name=name,
        path=Path(name),
        settings={"train.seed": seed},
        config="",
        history=(),
        summary={"id_test_accuracy": 1.0},
        outputs=outputs,
    )


def group_of(*runs):
    return Group(number=0, label="all", values={}, runs=runs)


def test_the_page_shows_images_of_the_first_class_before_one_of_the_class_they_were_taken_for():
    answers = answers_of(CONFUSED)
    pictures = {key: key.encode() for key in pictures_to_keep(answers)}
    confused = confused_groups(
        [group_of(run_of("a", 0, outputs=RunOutputs(answers={"ood_test": answers}, pictures=pictures)))]
    )
    (first, second) = confused.groups[0].pairs
    for pair, true, taken, count in ((first, "fox", "wolf", 8), (second, "owl", "crow", 5)):
        assert (pair.confusion.true, pair.confusion.predicted, pair.confusion.count) == (true, taken, count)
        wrong = by_hash([k for k, t in CONFUSED if t == taken and k.startswith(f"{true}/")])
        assert [key for _, key in pair.wrong] == wrong[:3]
        assert pair.like is not None
        assert pair.like[1].startswith(f"{taken}/")
        for number, key in (*pair.wrong, pair.like):
            assert base64.b64decode(confused.pictures[number].partition(",")[2]).decode() == key


def test_the_map_has_the_teachers_first_axis_across_and_the_student_on_the_same_axes():
    rng = np.random.default_rng(0)
    teacher = rng.normal(size=(40, 6)) * [0.1, 9, 0.1, 3, 0.1, 0.1]
    student = rng.normal(size=(40, 6)) * [0.1, 1, 0.1, 6, 0.1, 0.1]
    sample = EmbeddingSample(
        keys=tuple(map(str, range(40))),
        splits=("id_test",) * 10 + ("ood_test",) * 30,
        classes=("a",) * 10 + ("b",) * 30,
        student=student.astype(np.float16),
        teacher=teacher.astype(np.float16),
    )
    group = group_of(run_of("run", 0, outputs=RunOutputs(answers={}, sample=sample)))
    drawn = space_map([group], Confused(groups=(), pictures=()))
    assert (drawn["ood"], drawn["label"]) == ([0] * 10 + [1] * 30, [0] * 10 + [1] * 30)
    teacher, student = sample.teacher.astype(float), sample.student.astype(float)
    variances, axes = np.linalg.eigh(np.cov(teacher.T))
    assert drawn["share"] == pytest.approx(100 * variances[[-1, -2]] / variances.sum(), abs=0.1)
    expected = [(rows - teacher.mean(axis=0)) @ axes[:, [-1, -2]] for rows in (teacher, student)]
    shown = [np.array(drawn["teacher"]), np.array(drawn["students"][0]["places"])]
    scale = 1000 / max(np.abs(places).max() for places in expected)
    signs = np.sign([shown[0][:, axis] @ expected[0][:, axis] for axis in (0, 1)])
    for places, wanted in zip(shown, expected, strict=True):
        np.testing.assert_allclose(places, scale * wanted * signs, atol=0.51)  # whole numbers


def test_a_teachers_map_is_its_first_two_principal_components():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 5)) * [5, 3, 0.1, 0.1, 0.1]
    mean, axes, share = principal_axes(rows)
    np.testing.assert_allclose(np.abs(axes), np.eye(5)[:, :2], atol=0.05)
    assert ((rows - mean) @ axes).var(axis=0).sum() / rows.var(axis=0).sum() == pytest.approx(share.sum())
