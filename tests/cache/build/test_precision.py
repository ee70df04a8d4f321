"""``--precision auto`` goes on with what the rows that are there were computed in."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from helpers.caches import builder, rows_of

from cache import EmbeddingCache
from cache.build.from_episodes import EpisodeOptions, cache_episode_features
from cache.runtime.errors import CacheMismatch


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches the photos in the folder of that name, with these options."""
    return builder(photos, teacher_dir, tmp_path)


def precision_of(cache: EmbeddingCache) -> str:
    return cache.manifest.spec.teacher.precision


def test_a_cache_begun_in_bfloat16_is_continued_in_it_where_auto_is_float32(build, photos, tmp_path):
    kept = tmp_path / "later"
    kept.mkdir()
    for photo in sorted((photos / "train" / "apple").iterdir())[:4]:
        shutil.move(photo, kept)
    before = rows_of(build(precision="bfloat16").path)["train"]
    shutil.copytree(kept, photos / "train" / "apple", dirs_exist_ok=True)
    cache = build()
    assert precision_of(cache) == "bfloat16"
    rows = rows_of(cache.path)["train"]
    assert len(rows) == len(before) + 4
    assert {key: rows[key] for key in before} == before
    whole = build("whole", precision="bfloat16")
    for name in cache.split_names:
        mine, theirs = cache.split(name), whole.split(name)
        at = [theirs.position[key] for key in mine.keys]
        # Batches of other images: the last bits of bfloat16.
        np.testing.assert_allclose(
            np.asarray(mine.embeddings), np.asarray(theirs.embeddings[at]), rtol=0, atol=0.1
        )


def test_auto_on_a_cpu_begins_in_float32_and_a_precision_that_is_given_is_kept_to(build):
    assert precision_of(build()) == "float32"
    with pytest.raises(CacheMismatch, match="precision: float32 -> bfloat16"):
        build(precision="bfloat16")


def test_a_rebuilt_cache_is_begun_as_the_device_would(build):
    build(precision="bfloat16")
    assert precision_of(build(rebuild=True)) == "float32"


def test_episodes_go_on_in_the_precision_of_their_cache(episodes, teacher_dir, tmp_path):
    options = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0}
    for precision in ("bfloat16", "auto"):
        cache_episode_features(episodes, tmp_path / "cache", EpisodeOptions(precision=precision, **options))
        assert precision_of(EmbeddingCache.open(tmp_path / "cache")) == "bfloat16"
