"""The teacher of a shipped model, to answer beside it: images -> its own unit embeddings."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.decoding import load_rgb
from distill.deploy.class_sets import unit
from distill.deploy.info import ModelInfo
from distill.deploy.model import Embed


@dataclass(frozen=True, kw_only=True)
class TeacherBeside:
    """``prepare`` takes the bytes of a photo's file, ``embed`` what it gave of several: unit rows [B, D]."""

    prepare: Callable[[bytes], NDArray[Any]]
    embed: Embed


def teacher_beside(info: ModelInfo, name: str, *, pretrained: str | None = None) -> TeacherBeside:
    """Load a model's teacher by name on the CPU; it is compared with the same texts as the student.

    UserError if it is another teacher or cannot be loaded, or the texts are not the teacher's own: centred.
    """
    if info.text_mean:
        raise UserError(
            f"the texts of {info.name} are centred, and the teacher's images are not",
            fix="leave --teacher-model out: its answer would be another.",
        )
    import torch

    # Here, because it takes seconds, and is not there where models are only used.
    from cache.teacher.load import load_teacher

    teacher = load_teacher(
        name, pretrained=pretrained, precision="float32", device="cpu", weights_sha256=info.teacher_weights
    )
    if teacher.embed_dim != info.embed_dim:
        raise CacheMismatch(
            f"{name} gives {teacher.embed_dim} numbers an image, {info.name} has {info.embed_dim}",
            fix="give the teacher that the student learnt from.",
        )

    def prepare(content: bytes) -> NDArray[Any]:
        picture = load_rgb(io.BytesIO(content), decoding=info.preprocessing.decoding)
        prepared: NDArray[Any] = teacher.transform(picture).numpy()
        return prepared

    def embed(images: NDArray[Any]) -> NDArray[np.float32]:
        return unit(teacher.embed_images(torch.from_numpy(images)).numpy())

    return TeacherBeside(prepare=prepare, embed=embed)
