"""Very small teachers with random weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import save_file

from cache.runtime.atomic_files import sha256_of
from cache.teacher.open_clip_teacher import network_of


def save_clip(folder: Path, *, seed: int = 1, text: dict | None = None, **more) -> Path:
    torch.manual_seed(seed)
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 16},
        "text_cfg": {
            "context_length": 16,
            "vocab_size": 49408,
            "width": 16,
            "heads": 2,
            "layers": 2,
            **(text or {}),
        },
        **more,
    }
    folder.mkdir()
    save_file(network_of(config).state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    )
    return folder


def on_the_hub(hub: Path, folder: Path, name: str) -> str:
    """Put a teacher's folder where the hub's client keeps what it has downloaded; return the teacher's name."""
    place = hub / f"models--some--{name}"
    for subfolder in ("refs", "blobs", f"snapshots/{'a' * 40}"):
        (place / subfolder).mkdir(parents=True)
    (place / "refs" / "main").write_text("a" * 40)
    for file in folder.iterdir():
        blob = place / "blobs" / sha256_of(file)
        shutil.copy(file, blob)
        (place / "snapshots" / ("a" * 40) / file.name).symlink_to(blob)
    return f"hf-hub:some/{name}"
