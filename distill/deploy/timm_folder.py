"""What ``timm.create_model("local-dir:MODEL", pretrained=True)`` reads: a config beside the weights."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import nn

from cache.runtime.atomic_files import write_json
from cache.runtime.errors import UserError, reason_of
from distill.data.normalisation import Normalisation
from distill.deploy.check import Prepare
from distill.deploy.info import WEIGHTS, ModelInfo, Preprocessing
from distill.deploy.timm_student import TimmStudent
from distill.deploy.weights_file import write_weights
from distill.student.names import timm_module

CONFIG = "config.json"
# What timm has to know of a network to load weights of it, as it knows it itself.
ITS_OWN = ("first_conv", "classifier", "fixed_input_size")


def write_timm(folder: Path, student: TimmStudent, info: ModelInfo) -> tuple[nn.Module, Prepare]:
    """Write a student's weights and timm's config of it into a model's folder.

    Returned are the network and its preprocessing, as timm loads them from there: the student's own, a squash
    and then the middle. UserError if timm does not load it.
    """
    steps = info.preprocessing
    write_weights(
        folder / WEIGHTS,
        student.network.state_dict(),
        info,
        normalisation=Normalisation.of(steps.mean, steps.std, where="the model"),
        outputs=info.embed_dim,
        columns=(0, info.embed_dim),
    )
    config = {
        "architecture": student.name,
        "num_classes": info.embed_dim,
        "num_features": student.network.num_features,
        "model_args": student.arguments,
        "pretrained_cfg": {
            **{name: student.own[name] for name in ITS_OWN if name in student.own},
            **_prepared_by(steps),
            "num_classes": info.embed_dim,
            "license": info.license,
        },
    }
    write_json(folder / CONFIG, {name: value for name, value in config.items() if value != {}})
    return load_timm(folder)


def load_timm(folder: Path) -> tuple[nn.Module, Prepare]:
    """Return a network and its preprocessing as timm makes them of a folder; UserError where it does not."""
    timm = timm_module()
    try:
        network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        of_it = timm.data.resolve_data_config({}, model=network)
        transform = timm.data.create_transform(**of_it)
    except Exception as error:  # timm raises what the part of it that fails does
        raise UserError(
            f"timm {timm.__version__} does not load what was written for it ({reason_of(error)})",
            fix="pip install --upgrade timm, or leave timm out of --formats.",
        ) from error

    def prepare(photo: Image.Image) -> NDArray[np.float32]:
        prepared: NDArray[np.float32] = transform(photo).numpy()
        return prepared

    return network, prepare


def _prepared_by(steps: Preprocessing) -> dict[str, Any]:
    """Return a preprocessing in timm's words."""
    share = steps.crop / steps.resize
    if math.floor(steps.crop / share) != steps.resize:  # timm takes the whole number below
        share = steps.crop / (steps.resize + 0.5)
    return {
        "input_size": [3, steps.crop, steps.crop],
        "interpolation": "bilinear",
        "crop_pct": share,
        "crop_mode": "squash",
        "mean": [*steps.mean],
        "std": [*steps.std],
    }
