"""Very small teachers with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file


def save_clip(folder: Path, *, text: dict | None = None, **more) -> Path:
    import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
    import open_clip

    torch.manual_seed(1)
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
    model_class = open_clip.CustomTextCLIP if more.get("custom_text") else open_clip.CLIP
    built = model_class(**{k: v for k, v in json.loads(json.dumps(config)).items() if k != "custom_text"})
    folder.mkdir()
    save_file(built.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3}})
    )
    return folder
