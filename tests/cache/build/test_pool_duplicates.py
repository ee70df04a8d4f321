"""Images of the pool that are test images too: the same are an error, nearly the same are named."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import distill
from cache.build.from_folder import FeatureOptions, cache_features
from cache.reader import EmbeddingCache
from cache.runtime.errors import UserError
from cache.store.neighbours import nearest_rows, unit_rows

DEMO_TEACHER = Path(distill.__file__).parent / "demo" / "teacher"
OPTIONS = FeatureOptions(model=f"local-dir:{DEMO_TEACHER}", device="cpu", workers=0)


@pytest.fixture
def data(tmp_path):
    """Two classes to train, one OOD class, and a pool; each picture is another."""
    rng = np.random.default_rng(0)
    for folder in ("train/a", "train/b", "val/c", "pool"):
        (tmp_path / "data" / folder).mkdir(parents=True)
        for i in range(3):
            coarse = Image.fromarray(rng.integers(0, 256, (4, 4, 3), dtype=np.uint8))
            coarse.resize((64, 64)).save(tmp_path / "data" / folder / f"{i}.png")
    return tmp_path / "data"


def test_an_image_of_the_pool_that_is_a_test_image_is_an_error_that_names_both(data, tmp_path):
    twin = data / "pool" / "twin.png"
    twin.write_bytes((data / "val/c/1.png").read_bytes())
    for _ in range(2):
        with pytest.raises(
            UserError, match=r"1 images of the pool are test images.*twin\.png is ood_test/c/1\.png"
        ):
            cache_features(data, tmp_path / "cache", OPTIONS)
        with pytest.raises(UserError, match="not finished"):
            EmbeddingCache.open(tmp_path / "cache")
    twin.unlink()
    summary = cache_features(data, tmp_path / "cache", OPTIONS)
    assert (summary.rows, summary.new_rows, summary.duplicates) == (12, 0, [])


def test_an_image_of_the_pool_may_be_one_of_train(data, tmp_path):
    (data / "pool" / "twin.png").write_bytes((data / "train/a/1.png").read_bytes())
    assert cache_features(data, tmp_path / "cache", OPTIONS).duplicates == []


def test_nearly_a_test_image_is_counted_and_named(data, tmp_path):
    with Image.open(data / "val/c/1.png") as picture:
        picture.save(data / "pool" / "again.jpg", quality=95)
    summary = cache_features(data, tmp_path / "cache", OPTIONS)
    (line,) = [line for line in summary.doubts if line.startswith("pool: ")]
    assert "nearly test images (cosine above 0.98)" in line
    assert "pool/again.jpg and ood_test/c/1.png" in line


def test_the_nearest_of_many_rows_are_found_in_cells_too(monkeypatch):
    rng = np.random.default_rng(0)
    among = rng.normal(size=(2000, 16)).astype("float32")
    wanted = rng.integers(0, 2000, 300)
    rows = among[wanted] * 3 + rng.normal(size=(300, 16)).astype("float32") * 0.05
    monkeypatch.setattr("cache.store.neighbours.ROWS_AT_ONCE", 128)
    monkeypatch.setattr("cache.store.neighbours.EXACT_PAIRS", 1)
    blocks = list(nearest_rows(rows, among))
    assert [start for start, _, _ in blocks] == [0, 128, 256]
    nearest = np.concatenate([block[1] for block in blocks])
    assert (nearest == wanted).mean() > 0.99
    cosine = np.concatenate([block[2] for block in blocks])
    exact = (unit_rows(rows) * unit_rows(among)[nearest]).sum(axis=1)
    np.testing.assert_allclose(cosine, exact, rtol=1e-5)
