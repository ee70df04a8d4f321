"""Very small teachers with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file

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
