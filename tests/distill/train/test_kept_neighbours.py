"""A run whose nearest texts the cache keeps is the run that takes them in its steps."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.caches import builder
from helpers.runs import SMALL, lines

from cache import EmbeddingCache
from distill.config import RunConfig
from distill.data.training_data import BatchColumns
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.start import train as run

SETTINGS = [*SMALL, "loss.cap=0", "loss.vlalign_k=2", "loss.vlalign_filter=true", "train.epochs=1"]


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches the photos in the folder of that name, with these options."""
    return builder(photos, teacher_dir, tmp_path)


def kept_of_batch(cache: EmbeddingCache, photos, k: int):
    config = with_settings(RunConfig(), [*SETTINGS, f"loss.vlalign_k={k}"])
    session = open_session(config, cache_dir=cache.path, data_dir=photos)
    columns = BatchColumns(np.arange(4), torch.device("cpu"))
    return session.data.teachers[0].targets(columns).neighbours


def test_few_classes_have_none_kept_and_those_that_are_asked_for_are_used(build, photos):
    plain, kept = build("plain"), build("kept", neighbours=2)
    assert not list(plain.path.rglob("neighbours--*"))
    assert kept_of_batch(plain, photos, 2) is None
    nearest, similarity = kept_of_batch(kept, photos, 2)
    assert nearest.shape == similarity.shape == (4, 2)
    assert kept_of_batch(kept, photos, 3) is None  # more than are kept: all are taken in the step


def test_a_bank_that_is_another_by_now_is_not_looked_up_in_what_is_kept(build, photos):
    kept = build("kept", neighbours=2)
    labels = photos / "label2text.txt"
    labels.write_text(labels.read_text().replace("apple\n", "red_apple\n"))
    again = build("kept", neighbours=0)
    assert kept_of_batch(again, photos, 2) is None
    assert kept_of_batch(build("kept", neighbours=2), photos, 2) is not None
    assert kept.path == again.path


def test_both_runs_learn_the_same(build, photos, tmp_path):
    for name, options in (("plain", {}), ("kept", {"neighbours": 2})):
        cache = build(name, **options)
        out = tmp_path / f"run-{name}"
        run(with_settings(RunConfig(), SETTINGS), cache_dir=cache.path, data_dir=photos, out=out)
    one, other = (lines(tmp_path / f"run-{name}") for name in ("plain", "kept"))
    assert len(one) == len(other) == 1
    for mine, theirs in zip(one, other, strict=True):
        losses = [name for name in mine if name.startswith("loss") or name in ("vlalign", "total")]
        assert losses
        assert {name: mine[name] for name in losses} == pytest.approx(
            {name: theirs[name] for name in losses}, rel=1e-5
        )
