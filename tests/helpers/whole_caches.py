"""Caches with everything that a cache can hold, and what is done to their files."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from conftest import make_photos
from helpers.once import made_once

if TYPE_CHECKING:
    from cache.build.from_folder import FeatureOptions


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory, teacher_dir: Path) -> Path:
    """A folder with photos and a cache in each format, with everything that a cache can hold; to be copied."""

    from cache.build.from_folder import cache_features

    def build(root: Path) -> None:
        photos = make_photos(root / "photos")
        captions = [
            {"key": f"{n}/train_{i}.jpg", "caption": f"{n} number {i}"}
            for n in ("apple", "banana")
            for i in range(8)
        ]
        (photos / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
        for name in ("hdf5", "tar"):
            cache_features(photos, root / name, options_of(name, teacher_dir))

    return made_once(tmp_path_factory, "whole", build)


def options_of(name: str, teacher_dir: Path) -> FeatureOptions:
    from cache.build.from_folder import FeatureOptions

    return FeatureOptions(
        model=f"local-dir:{teacher_dir}",
        device="cpu",
        workers=0,
        batch_size=8,
        neighbours=3,
        format="hdf5" if name == "hdf5" else "webdataset",
        views=2,
        support_views=2,
        pixels=36,
        pixels_format="raw" if name == "hdf5" else "jpeg",
        keep_text_tower=True,
    )


def files_of(cache: Path) -> dict[str, bytes]:
    return {str(p.relative_to(cache)): p.read_bytes() for p in sorted(cache.rglob("*")) if p.is_file()}


def flip(path: Path, at: int, rng: random.Random) -> None:
    raw = bytearray(path.read_bytes())
    raw[at] ^= rng.randrange(1, 256)
    path.write_bytes(raw)


def assert_same(name: str, numbers: object, expected: np.ndarray, *, where: str) -> None:
    """What is stored comes back to the last bit; what a reader may have computed anew, as near as sums come.

    Processors add up in another order: some units of float32's 6e-8 for a cosine, more for a text tower's row.
    """
    close = {"similarity": 1e-6, "tower": 1e-5}.get(name.rpartition("/")[2])
    if close is None:
        np.testing.assert_array_equal(np.asarray(numbers), expected, err_msg=f"{where}: {name}")
    else:
        np.testing.assert_allclose(
            np.asarray(numbers), expected, rtol=0, atol=close, err_msg=f"{where}: {name}"
        )
