"""Keeps what this version writes, for tests of later versions: ``python tests/keep_schema.py``.

Writes ``tests/golden/schema_N``: a cache in each format, a run's checkpoint, and what must be read from them.
Run once for each schema that is released; what is there is never written again after that.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import conftest
import numpy as np
import torch

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.maintain.convert import convert_cache
from cache.store.checksums import append_checksum
from cache.store.manifest import SCHEMA_VERSION
from distill.settings import from_toml, load_recipe, with_settings
from distill.student.build import build_student
from distill.train.start import train as run

GOLDEN = Path(__file__).parent / "golden"
# Seen from the project's folder, so that no path of this machine is kept.
TEACHER = Path("distill") / "demo" / "teacher"
# Texts of the five class folders that this teacher tells apart.
TEXTS = [
    f"{colour} {shape}"
    for colour, shape in zip(
        ("red", "green", "blue", "purple", "yellow"),
        ("circle", "square", "triangle", "star", "heart"),
        strict=True,
    )
]
SETTINGS = [
    "train.epochs=1",
    "train.batch_size=8",
    "train.device=cpu",
    "student.arch=timm:test_resnet",
    "student.image_size=32",
    "data.workers=0",
]


def images() -> torch.Tensor:
    """Return two images that a student of any schema is shown, float32 [2, 3, 32, 32]."""
    return torch.arange(2 * 3 * 32 * 32, dtype=torch.float32).view(2, 3, 32, 32).sin()


def coarse(value: Any) -> Any:
    """Return a state whose weights are multiples of 1/64, which compress well."""
    if isinstance(value, dict):
        return {key: coarse(part) for key, part in value.items()}
    if isinstance(value, torch.Tensor) and value.is_floating_point() and value.ndim > 1:
        return (value * 64).round() / 64
    return value


def answers(state: dict[str, Any]) -> torch.Tensor:
    """Return what the student of a checkpoint says of :func:`images`."""
    config = from_toml(state["config"], where="checkpoint")
    student = build_student(config.student.arch, embed_dim=state["embed_dim"], image_size=32)
    student.load_state_dict(state["student"])
    with torch.no_grad():
        return student.eval()(images())


def read_back(cache: EmbeddingCache) -> dict[str, Any]:
    """Return everything that a cache holds, by name; a cache without side shards lacks their numbers."""
    numbers: dict[str, Any] = {}
    for name in cache.split_names:
        rows = cache.split(name)
        numbers |= {
            f"{name}/keys": np.array(rows.keys),
            f"{name}/labels": rows.labels,
            f"{name}/embeddings": np.asarray(rows.embeddings),
        }
        numbers[f"{name}/nearest"], numbers[f"{name}/similarity"] = cache.neighbours(name, "labels", 5)
    for name in cache.bank_names:
        numbers[f"texts/{name}"] = cache.text_bank(name).embeddings
    train = cache.split("train")
    some = np.arange(len(train.keys))
    numbers["support_views"] = cache.support_views("train", train.keys)
    numbers["crop_views"] = cache.crop_views("train").embeddings(some, some % 2)
    numbers["boxes"], numbers["flips"] = cache.crop_views("train").crops(some, some % 2)
    pixels = cache.pixels("train", side=36)
    assert pixels is not None
    numbers["pixels"] = pixels.images(some)
    return numbers


def keep(out: Path) -> None:
    """Write everything below ``out``."""
    with tempfile.TemporaryDirectory() as scratch:
        photos, trained = conftest.make_photos(Path(scratch) / "photos"), Path(scratch) / "run"
        names = sorted({path.name for path in photos.glob("*/*") if path.is_dir()})
        lines = [
            f"{name} {i} {text}\n" for i, (name, text) in enumerate(zip(names, TEXTS, strict=True), start=1)
        ]
        (photos / "label2text.txt").write_text("".join(lines))
        (photos / "chatgpt.txt").write_text("".join(f"a photo of a {text}\n" for text in TEXTS))
        options = FeatureOptions(
            model=f"local-dir:{TEACHER}", device="cpu", workers=0, views=2, support_views=2, pixels=36
        )
        cache_features(photos, out / "cache", options)
        convert_cache(out / "cache", out / "tar", format="webdataset")
        config = with_settings(load_recipe("smoke"), SETTINGS)
        run(config, cache_dir=out / "cache", data_dir=photos, out=trained)
        state = torch.load(trained / "last.pt", weights_only=True)
    state = {**state, "student": coarse(state["student"]), "optimizer": coarse(state["optimizer"])}
    state |= {"cache_dir": "cache", "data_dir": "photos"}
    (out / "run").mkdir()
    write_state(out / "run" / "last.pt", state)
    numbers = {**read_back(EmbeddingCache.open(out / "cache")), "answers": answers(state).numpy()}
    np.savez_compressed(out / "expected.npz", **numbers)


def write_state(path: Path, state: dict[str, Any]) -> None:
    """Write a checkpoint as this version does."""
    torch.save(state, path)
    append_checksum(path)


def main() -> None:
    """Keep the present schema."""
    out = GOLDEN / f"schema_{SCHEMA_VERSION}"
    if out.exists():
        sys.exit(f"{out} is there already: a schema that is released does not change.")
    try:
        keep(out)
    except BaseException:
        shutil.rmtree(out, ignore_errors=True)
        raise


if __name__ == "__main__":
    main()
