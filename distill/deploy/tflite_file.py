"""A student for phones and small boards: a file of LiteRT, once TensorFlow Lite (extra ``tflite``).

It takes one image at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cache.runtime.errors import UserError, missing_package, reason_of
from distill.deploy.info import Preprocessing
from distill.deploy.model import Embed
from distill.deploy.onnx_files import UnitEmbedding, quiet


def write_tflite(path: Path, embedding: UnitEmbedding, steps: Preprocessing) -> Embed:
    """Write a student as ``image`` float32 [1, 3, S, S] -> embedding [1, D], and return it opened by LiteRT.

    UserError if the converter is not installed, or does not take the student.
    """
    litert = import_litert()
    with quiet():
        try:
            example = torch.zeros(1, steps.channels, steps.crop, steps.crop)
            litert.convert(embedding, sample_kwargs={"image": example}).export(str(path))
        except Exception as error:  # torch.export's, MLIR's and its own
            raise UserError(
                f"litert-torch does not take this student ({reason_of(error)})",
                fix="leave tflite out of --formats, or export another --arch.",
            ) from error
    return open_tflite(path)


def import_litert() -> Any:
    """Return the converter; UserError where it is missing."""
    try:
        with quiet():
            import litert_torch
    except ImportError as error:
        raise missing_package(error, extra="tflite") from error
    return litert_torch


def open_tflite(path: Path) -> Embed:
    """Return what runs such a file: prepared photos [B, 3, S, S], one after the other, -> [B, D]."""
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(model_path=str(path)).get_signature_runner()
    (given,) = runner.get_input_details()

    def embed(images: NDArray[Any]) -> NDArray[np.float32]:
        return np.concatenate([next(iter(runner(**{given: image[None]}).values())) for image in images])

    return embed
