"""Two runs on the same photos, of which one was judged on half of the OOD images; caches and readers of such data."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import EMBED_DIM, OOD_CLASSES, make_photos
from helpers.once import made_once
from helpers.runs import BASE

SWEEP = "seeds = [0]\n" + BASE.replace("epochs = 2", "epochs = 1")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with photos, the same with half of the OOD images, a cache, and a run on either, by seed; to be read."""
    return made_once(tmp_path_factory, "identity", _make)


def _make(root: Path) -> None:
    from distill.train.start import train as run

    make_photos(root / "photos", test=4)
    shutil.copytree(root / "photos", root / "half")
    for i in (1, 3):
        for name in OOD_CLASSES:
            (root / "half" / "val" / name / f"val_{i}.jpg").unlink()
    cached = cache_of(root / "cache", root / "photos", banks=("labels", "others"))
    (root / "sweep.toml").write_text(SWEEP)
    for name, data, seed in (("all", "photos", 0), ("half", "half", 1)):
        config = config_of(root, f"train.seed={seed}")
        run(config, cache_dir=cached.path, data_dir=root / data, out=root / "runs" / name)


@pytest.fixture
def own(made: Path, tmp_path: Path) -> Path:
    """A copy of ``made`` to change; its run is of these photos, with their times, and this cache."""
    shutil.copytree(made, tmp_path / "own")
    return tmp_path / "own"


def cache_of(out, photos, *, texts=None, swapped=(), order=1, banks=("labels",), with_data=True):
    """An imported cache of ``photos``: the texts of two ``swapped`` classes, rows in another ``order``."""
    from cache import EmbeddingCache
    from cache.maintain.import_embeddings import import_embeddings
    from cache.maintain.imported import Imported
    from cache.maintain.imported_banks import ImportedTexts
    from cache.sources.data import open_data

    rng, folder = np.random.default_rng(0), open_data([photos])
    centres = {name: rng.normal(size=EMBED_DIM) for name in folder.class_names}
    keys = [f"{name}/{image.key}" for name, split in folder.splits.items() for image in split.all()]
    rows = np.stack([2 * centres[key.split("/")[1]] + rng.normal(size=EMBED_DIM) for key in keys])
    owner = {**{name: name for name in centres}, **dict(zip(swapped, reversed(swapped), strict=True))}
    class_rows = np.stack([centres[owner[name]] for name in centres])
    import_embeddings(
        out,
        Imported(
            keys=keys[::order],
            embeddings=rows.astype("float32"),
            texts=[
                ImportedTexts(name=b, classes=list(centres), embeddings=class_rows, texts=texts)
                for b in banks
            ],
            folder=folder if with_data else None,
            dtype="float32",
        ),
    )
    return EmbeddingCache.open(out)


def config_of(root, *settings):
    """The config of the one run of the sweep in ``root``."""
    from distill.settings import with_settings
    from distill.sweep.plan import load_sweep

    return with_settings(load_sweep(str(root / "sweep.toml")).runs[0].config, settings)


def reader(root, *, data="photos", cache="cache"):
    from cache import EmbeddingCache
    from cache.sources.data import open_data
    from distill.data.identity_reader import IdentityReader

    return IdentityReader(cache=EmbeddingCache.open(root / cache), folder=open_data([root / data]))
