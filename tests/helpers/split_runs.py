"""Runs of data that lack some of the splits: each with its photos and its cache."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from conftest import make_cache, make_photos
from helpers.once import made_once

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=1", "train.batch_size=6", "train.device=cpu",
    "data.workers=0", "train.precision=float32",
]  # fmt: skip
# What is taken out of photos with all splits.
LACKING = {
    "all": (),
    "id": ("val",),
    "train": ("val", "val_on_train"),
    "ood": ("val_on_train",),
    "one": ("val_on_train", "val/plum"),
}


@pytest.fixture(scope="session")
def split_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of ``NAME/photos``, ``NAME/cache`` and ``NAME/run`` for each of ``LACKING``; to be read."""
    return made_once(tmp_path_factory, "split_runs", _train)


def _train(root: Path) -> None:
    from distill.config import RunConfig
    from distill.settings import with_settings
    from distill.train.start import train as run

    config = with_settings(RunConfig(), SMALL)
    for name, folders in LACKING.items():
        photos = make_photos(root / name / "photos", train=2, test=2)
        for folder in folders:
            shutil.rmtree(photos / folder)
        cached = make_cache(root / name / "cache", photos)
        run(config, cache_dir=cached.path, data_dir=photos, out=root / name / "run")
