"""What a GPU computes is what the processor does: stage 1's rows, a run's images, its losses."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from helpers.devices import DEVICES, MOSTLY_GPU
from helpers.runs import SMALL

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features
from cache.teacher.load import load_teacher
from distill.config import RunConfig
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.start import train


def config_on(device, *settings):
    return with_settings(RunConfig(), [*SMALL, "loss.cap=0", f"train.device={device}", *settings])


@pytest.fixture
def cache(photos, teacher_dir, tmp_path):
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
    cache_features(photos, tmp_path / "cache", options)
    return tmp_path / "cache"


@pytest.mark.parametrize("device", MOSTLY_GPU)
def test_stage_1_gives_the_rows_of_the_processor(cache, photos, teacher_dir, tmp_path, device):
    model = f"local-dir:{teacher_dir}"
    for name, options in {"plain": {}, "views": {"views": 2, "support_views": 2}}.items():
        given = FeatureOptions(model=model, device=device, precision="float32", workers=1, **options)
        cache_features(photos, tmp_path / name, given)
        here, there = (EmbeddingCache.open(path).split("train") for path in (cache, tmp_path / name))
        assert [*here.keys] == [*there.keys]
        rows, others = (np.asarray(split.embeddings[:], dtype=np.float64) for split in (here, there))
        cosines = (rows * others).sum(1) / np.linalg.norm(rows, axis=1) / np.linalg.norm(others, axis=1)
        assert cosines.min() > 0.999


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_rows_of_pixels_are_those_of_numbers(teacher_dir, device, precision):
    teacher = load_teacher(f"local-dir:{teacher_dir}", device=device, precision=precision)
    side = teacher.spec.image_size[0]
    pixels = torch.randint(0, 256, (5, 3, side, side), dtype=torch.uint8)
    numbers = teacher.eight_bit.numbers(pixels, torch.float32)
    assert torch.equal(teacher.embed_images(pixels), teacher.embed_images(numbers))
    assert (teacher.in_workers is teacher.eight_bit.pixels) == (device == "cuda")


@pytest.mark.parametrize("device", DEVICES)
def test_images_kept_on_the_device_are_those_of_the_files(cache, photos, device):
    images = {}
    for kept in ("on", "off"):
        session = open_session(
            config_on(device, f"data.device_images={kept}"), cache_dir=cache, data_dir=photos
        )
        chosen, pixels = next(session.data.images([np.arange(6)]))
        assert kept == "off" or pixels.device.type == device
        images[kept] = (np.asarray(chosen).tolist(), pixels.cpu())
    assert images["on"][0] == images["off"][0]
    assert torch.equal(images["on"][1], images["off"][1])


@pytest.mark.parametrize("device", MOSTLY_GPU)
def test_a_run_has_the_losses_of_the_processor(cache, photos, tmp_path, device):
    losses = []
    for number, name in enumerate(("cpu", device)):
        config, out = config_on(name, "train.epochs=1", "train.precision=float32"), tmp_path / f"run-{number}"
        train(config, cache_dir=cache, data_dir=photos, out=out)
        losses.append(json.loads((out / "metrics.jsonl").read_text())["loss_total"])
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
