"""Any number of teachers: a head each on one trunk, and the mean of the heads."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.runs import SMALL, StopAt, lines, same_run
from helpers.teachers import save_clip

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.judge.open_run import evaluate_run, open_trained
from distill.judge.outputs import read_logits
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.start import train as run
from distill.train.stopping import Stopped

NAMES = ("main", "second", "third", "fourth")
DIMS = (16, 24, 20, 12)
FOUR = f"teachers={json.dumps(NAMES)}"
BOTH = 'teachers=["main","second"]'
ALIKE = ("loss.standardise=phi-s", "loss.teacher_confidence=true")


@pytest.fixture(scope="module")
def four(tmp_path_factory, drawn_photos, teacher_dir):
    """A cache of four teachers, each of a size of its own; to be read."""
    root = tmp_path_factory.mktemp("four")
    for seed, (name, dim) in enumerate(zip(NAMES, DIMS, strict=True)):
        folder = teacher_dir if name == "main" else save_clip(root / name, seed=seed, embed_dim=dim)
        options = FeatureOptions(model=f"local-dir:{folder}", device="cpu", workers=0, teacher=name)
        cache_features(drawn_photos, root / "cache", options)
    return EmbeddingCache.open(root / "cache")


@pytest.fixture
def train(four, drawn_photos, tmp_path):
    def run_it(out, *settings, **options):
        config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", "train.epochs=2", *settings])
        return run(config, cache_dir=four.path, data_dir=drawn_photos, out=tmp_path / out, **options)

    return run_it


@pytest.mark.parametrize(
    "how",
    [
        ("student.head=stages", "train.head_only=closed-form", "student.ridge=1"),
        ("student.head=stages", "train.head_only=trained", *ALIKE),
        ("student.head_start=closed-form", "loss.center=true", "loss.im_cst_bank=-1", *ALIKE),
    ],
    ids=["closed form", "heads alone", "head first, centred, with a bank"],
)
def test_a_student_of_four_teachers_is_judged_by_each_head_and_their_mean(train, tmp_path, how):
    summary = train("run", FOUR, *how)
    endings = ("", "@second", "@third", "@fourth", "@mean")
    names = [f"{split}{ending}" for split in ("id_test", "ood_test") for ending in endings]
    assert {f"{name}_accuracy" for name in names} <= summary.keys()
    assert {f"{name}_accuracy" for name in names} <= summary["closed_form"].keys()
    judged = evaluate_run(tmp_path / "run", device="cpu")
    assert sorted(judged) == sorted(names)
    last = lines(tmp_path / "run")[-1]
    for name in names:
        assert judged[name].accuracy == pytest.approx(last[f"{name}_accuracy"])
    assert open_trained(tmp_path / "run", device="cpu").heads[-1].stop == sum(DIMS)


def test_the_mean_is_of_the_heads_logits(train, tmp_path):
    train("run", BOTH)
    first, second, mean = (
        read_logits(tmp_path / "run" / "logits.npz", f"ood_test{head}").logits.astype(np.float64)
        for head in ("", "@second", "@mean")
    )
    assert mean == pytest.approx((first + second) / 2, rel=1e-4)


@pytest.mark.long
def test_a_run_of_several_that_was_stopped_goes_on_as_if_it_had_not_been(train, tmp_path):
    settings = (BOTH, *ALIKE, "data.memory_mb=0")
    train("whole", *settings)
    with pytest.raises(Stopped):
        train("cut", *settings, progress=StopAt(30))
    train("cut", *settings, resume_run=True)
    same_run(tmp_path / "cut", tmp_path / "whole")


def test_rows_are_standardised_for_each_teacher_and_the_student_stays_in_its_space(four, drawn_photos):
    config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", BOTH, "loss.standardise=phi-s"])
    session = open_session(config, cache_dir=four.path, data_dir=drawn_photos)
    for head, rows in zip(session.model.heads, session.data.teachers, strict=True):
        unit = torch.nn.functional.normalize(rows.rows_of(np.arange(len(rows.row_of))), dim=1)
        whole = unit.double().var(dim=0, correction=0).sum()
        assert head.scales.unit == pytest.approx(whole.item() ** -0.5, rel=1e-6)
        assert torch.equal(head.in_its_space(unit), unit)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (('teachers=["main","mean"]',), "results of mean are those of the mean of all heads"),
        (("loss.teacher_confidence=true",), "teacher_confidence is on with the teacher main alone"),
        (("loss.standardise=phi-s", "loss.mse=0"), "phi-s with loss.mse=0 and loss.mse_raw=0"),
    ],
)
def test_what_means_nothing_is_refused(settings, problem):
    with pytest.raises(UserError, match=problem):
        with_settings(RunConfig(), [*SMALL, *settings])
