"""Classes that a student cannot be judged on are told before any work; each of a cache's teachers is judged."""

from __future__ import annotations

import shutil

import pytest
from helpers.runs import SMALL

from cache.runtime.errors import CacheMismatch
from distill.config import RunConfig
from distill.settings import with_settings
from distill.train.start import train


def test_an_ood_class_that_came_after_the_cache_is_told_before_an_epoch(cached, photos, tmp_path):
    data = shutil.copytree(photos, tmp_path / "data")
    new = next(path for path in (data / "val").iterdir() if path.is_dir())
    shutil.copytree(new, data / "val" / "zucchini")
    with pytest.raises(
        CacheMismatch, match=r"ood_test of .* were not there when the cache .*: zucchini\. Fix"
    ):
        train(with_settings(RunConfig(), SMALL), cache_dir=cached.path, data_dir=data, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
