"""A student of the teacher's centred space, from training to what is shipped."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from conftest import make_cache, make_photos
from helpers.exported import invoke
from helpers.runs import SMALL

from distill.config import RunConfig
from distill.data.training_data import TeacherRows
from distill.judge.open_run import evaluate_run, open_trained
from distill.settings import with_settings
from distill.student.centring import Centre
from distill.train.start import train as run


def unit(rows):
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_rows_and_texts_lose_the_mean_of_their_unit_rows():
    rng = np.random.default_rng(0)
    images, texts = rng.normal(2, 1, (50, 8)), rng.normal(-1, 1, (5, 8))
    centre = Centre(8)
    centre.set_means(torch.from_numpy(images), torch.from_numpy(texts))
    for take, rows in ((centre.images, images), (centre.texts, texts)):
        expected = unit(rows) - unit(rows).mean(axis=0)
        np.testing.assert_allclose(take(torch.from_numpy(rows)).numpy(), expected, atol=1e-6)


def test_a_sample_of_rows_is_of_those_that_are_learnt_from(cached):
    every = cached.split("train").embeddings
    learnt = TeacherRows(embeddings=every, row_of=np.arange(3, 12))
    assert torch.equal(learnt.sampled(100, seed=0), torch.from_numpy(every[3:12]).float())
    some = {row.tobytes() for row in learnt.sampled(5, seed=0).numpy()}
    assert len(some) == 5
    assert some <= {row.tobytes() for row in every[3:12].astype(np.float32)}


@pytest.fixture(scope="module")
def centred(tmp_path_factory):
    """A run in the centred space with every loss, and its cache."""
    root = tmp_path_factory.mktemp("centred")
    photos, out = make_photos(root / "photos"), root / "run"
    cache = make_cache(root / "cache", photos, captions=True)
    config = with_settings(RunConfig(), [*SMALL, "loss.center=true", "loss.im_cst_bank=5", "train.epochs=2"])
    run(config, cache_dir=cache.path, data_dir=photos, out=out)
    return cache, out


def test_a_centred_student_is_judged_by_centred_texts_wherever_it_is_opened(centred):
    cache, out = centred
    trained = open_trained(out, device="cpu")
    (head,) = trained.heads
    bank = cache.text_bank("labels")
    names = cache.split("train").class_names
    mean = unit(bank.class_texts(names)).mean(axis=0)
    np.testing.assert_allclose(head.centre.text.numpy(), mean, atol=1e-6)
    ood = cache.split("ood_test").class_names
    expected = unit(bank.class_texts(ood)) - mean
    np.testing.assert_allclose(head.class_texts(ood, torch.empty(0)).numpy(), expected, atol=1e-6)
    judged = evaluate_run(out, splits=["ood_test"], device="cpu")["ood_test"]
    last = json.loads((out / "metrics.jsonl").read_text().splitlines()[-1])
    assert judged.accuracy == pytest.approx(last["ood_test_accuracy"])
    assert {"loss_cls", "loss_mse", "loss_im_cst", "loss_vlalign", "loss_cap"} <= {*last}


def test_a_centred_model_keeps_its_banks_centred_and_the_mean_for_new_texts(centred, tmp_path):
    _, out = centred
    invoke("export", out, "--out", tmp_path / "model")
    info = json.loads((tmp_path / "model/model.json").read_text())
    trained = open_trained(out, device="cpu")
    (head,) = trained.heads
    np.testing.assert_allclose(info["text_mean"], head.centre.text.numpy(), atol=1e-7)
    with np.load(tmp_path / "model/texts/labels.npz") as bank:
        names = tuple(name for name in bank["classes"] if name)
        expected = unit(head.class_texts(names, torch.empty(0)).numpy())
        np.testing.assert_allclose(bank["embeddings"][: len(names)], expected, atol=1e-6)
