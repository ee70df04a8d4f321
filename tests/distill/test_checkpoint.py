"""A checkpoint is whole or refused."""

from __future__ import annotations

import random

import pytest
import torch
from helpers.runs import ONE_EPOCH
from helpers.whole_caches import flip

from cache.runtime.errors import UserError
from distill.checkpoint import SCHEMA_VERSION, read_checkpoint
from distill.settings import load_recipe, with_settings
from distill.train.start import train as run


def test_a_checkpoint_with_a_flipped_byte_is_refused_wherever_it_is(whole, tmp_path):
    run(
        with_settings(load_recipe("smoke"), ONE_EPOCH),
        cache_dir=whole / "hdf5",
        data_dir=whole / "photos",
        out=tmp_path / "run",
    )
    path = tmp_path / "run" / "last.pt"
    raw, rng = path.read_bytes(), random.Random(0)
    assert torch.load(path, weights_only=True)["schema_version"] == SCHEMA_VERSION  # plain torch reads on
    for at in [0, len(raw) - 1, len(raw) - 50, *(rng.randrange(len(raw)) for _ in range(40))]:
        flip(path, at, rng)
        with pytest.raises(UserError, match="is damaged"):
            read_checkpoint(path)
        path.write_bytes(raw)
    path.write_bytes(raw[:-1000])
    with pytest.raises(UserError, match="is damaged"):
        read_checkpoint(path)


def test_of_a_checkpoint_that_a_run_has_not_the_others_are_named(tmp_path):
    with pytest.raises(UserError, match="give the folder of a run that has trained"):
        read_checkpoint(tmp_path / "last.pt")
    for name in ("last", "ema"):
        (tmp_path / f"{name}.pt").touch()
    with pytest.raises(UserError, match="that run has ema, last: choose with --checkpoint"):
        read_checkpoint(tmp_path / "best.pt")
