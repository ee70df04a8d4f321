"""A run and what was exported of it, for the tests of shipped models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from click.testing import CliRunner
from PIL import Image

from cache.sources.decoding import load_rgb
from cli import main
from distill.data.augment import eval_transform
from distill.judge.open_run import open_trained

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=6", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0", "loss.mse=1", "train.precision=float32",
]  # fmt: skip


def student_says(trained: Path, photos: list[Path]) -> np.ndarray:
    """Unit embeddings by the torch student, its own way."""
    opened = open_trained(trained / "run", device="cpu")
    size = round(32 * 256 / 224)
    images = [
        torch.from_numpy(np.array(load_rgb(p).resize((size, size), Image.Resampling.BILINEAR)))
        for p in photos
    ]
    with torch.no_grad():
        rows = opened.student(
            eval_transform(torch.stack(images).permute(0, 3, 1, 2), 32, opened.model.augment.normalisation)
        )
    embeddings: np.ndarray = torch.nn.functional.normalize(rows, dim=1).numpy()
    return embeddings


def image_files(folder: Path) -> list[Path]:
    """The pictures below a folder, as ``predict`` takes them."""
    return sorted(folder.rglob("*.jpg"))


def val_photos(trained: Path) -> list[Path]:
    return image_files(trained / "photos" / "val")


def invoke(*words: object) -> Any:
    return CliRunner().invoke(main, list(map(str, words)))
