"""Photos of several labels are cached; training and judging say in one line that they cannot take them."""

from __future__ import annotations

import pytest
from conftest import ROOT
from helpers.picture_lists import write_pictures

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.data.stream import augment_of
from distill.judge.teachers import evaluate_teacher


def test_training_on_photos_of_several_labels_and_judging_them_is_one_line(tmp_path):
    write_pictures(tmp_path, ["0.jpg", "1.jpg"])
    (tmp_path / "list.csv").write_text("path,labels\n0.jpg,red_square;blue_star\n1.jpg,blue_star\n")
    options = FeatureOptions(model=f"local-dir:{ROOT}/distill/demo/teacher", workers=0)
    cache_features(tmp_path / "list.csv", tmp_path / "cache", options)
    with pytest.raises(UserError, match="has photos of several labels"):
        augment_of(RunConfig(), EmbeddingCache.open(tmp_path / "cache"))
    with pytest.raises(UserError, match="has photos of several labels"):
        evaluate_teacher(tmp_path / "cache")
