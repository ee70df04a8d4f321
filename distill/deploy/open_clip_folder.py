"""What ``open_clip.create_model("local-dir:MODEL")`` reads: a student as the image tower of a CLIP.

The text tower is the teacher's, which the run's cache keeps: that of any class text is the student's own
classifier. open_clip squashes a photo to the sides of the input and cuts nothing off.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image

from cache import EmbeddingCache
from cache.runtime.atomic_files import replacing, write_json
from cache.runtime.errors import UserError
from cache.store.spec import LOCAL_DIR
from cache.teacher.load import load_teacher
from cache.teacher.model_files import OPEN_CLIP_CONFIG
from cache.teacher.teacher import Teacher
from cache.teacher.text_tower import TextTower, is_of_transformers, read_tower_config
from distill.deploy.check import ALIKE, Prepare
from distill.deploy.class_sets import unit
from distill.deploy.info import ModelInfo
from distill.deploy.model import Embed
from distill.deploy.timm_student import LEAVE_OUT, OPEN_CLIP, TimmStudent

CLIP_WEIGHTS = "open_clip_model.safetensors"
LEAVE_IT_OUT = LEAVE_OUT.format(OPEN_CLIP)


@dataclass(frozen=True, kw_only=True)
class Squeeze:
    """How open_clip makes a photo the input: by its ``resize_mode``, ``side`` pixels wide and high."""

    mode: str
    side: int


@dataclass(frozen=True, kw_only=True)
class StudentClip:
    """A student as open_clip loads it: photos and texts -> unit embeddings."""

    teacher: Teacher

    @property
    def prepare(self) -> Prepare:
        """Its own preprocessing of a photo."""

        def prepare(photo: Image.Image) -> NDArray[np.float32]:
            prepared: NDArray[np.float32] = self.teacher.transform(photo).numpy()
            return prepared

        return prepare

    @property
    def embed(self) -> Embed:
        """Prepared photos [B, 3, S, S] -> [B, D]."""

        def embed(images: NDArray[Any]) -> NDArray[np.float32]:
            rows = self.teacher.embed_images(torch.from_numpy(images))
            embeddings: NDArray[np.float32] = F.normalize(rows, dim=1).numpy()
            return embeddings

        return embed

    def texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Return the unit rows of texts [T, D]."""
        return unit(self.teacher.embed_texts(texts)[0].numpy())


def check_space(info: ModelInfo) -> None:
    """Make sure that a student is of the teacher's own space; UserError."""
    if info.text_mean:
        raise UserError(
            "this student is of the teacher's centred space (loss.center), and open_clip takes texts as "
            "they are",
            fix=f"train with --set loss.center=false, or {LEAVE_IT_OUT}.",
        )


def check_tower(cache: EmbeddingCache) -> None:
    """Make sure that a cache keeps a text tower; UserError."""
    if not cache.text_tower:
        raise UserError(
            f"an open_clip model has a text tower, and the cache {cache.path} keeps none of its teacher's",
            fix="run the same cache-features command again with --keep-text-tower (an imported cache has "
            f"none), or {LEAVE_IT_OUT}.",
        )


def check_open_clip(student: TimmStudent, info: ModelInfo, cache: EmbeddingCache) -> None:
    """Make sure that open_clip can hold a student; UserError else."""
    check_space(info)
    side = info.preprocessing.crop
    if student.takes_one_size and side != student.own_side:
        raise UserError(
            f"open_clip builds {student.name} for {student.own_side} px alone, and this student takes {side}",
            fix=f"train with --image-size {student.own_side}, or {LEAVE_IT_OUT}.",
        )
    check_tower(cache)
    _check_library(cache)


def _check_library(cache: EmbeddingCache) -> None:
    """Raise a UserError where the kept text tower is one of transformers', which open_clip cannot build."""
    folder = (cache.path / cache.text_tower[0].file).parent
    if is_of_transformers(read_tower_config(folder)):
        raise UserError(
            f"the text tower that the cache {cache.path} keeps is one of transformers', and open_clip builds "
            "its own",
            fix=f"make the cache with the model as open_clip has it, or {LEAVE_IT_OUT}.",
        )


def write_open_clip(
    folder: Path,
    student: TimmStudent,
    info: ModelInfo,
    cache: EmbeddingCache,
    *,
    nearest: Callable[[StudentClip], float],
) -> StudentClip:
    """Write a student, its teacher's text tower and the temperature into a model's folder as one CLIP.

    ``nearest`` says how near a candidate's own preprocessing is to the student's: the nearest is kept. It is
    returned as open_clip loads it from there.
    """
    tower = TextTower.load(cache.path, files=cache.text_tower)
    for file in cache.text_tower[2:]:  # of a tokenizer of transformers, behind weights and config
        with replacing(folder / Path(file.file).name) as temporary:
            shutil.copyfile(cache.path / file.file, temporary)
    state = {f"visual.trunk.{name}": value for name, value in student.network.state_dict().items()}
    state |= {f"text.{name}": value for name, value in tower.network.state_dict().items()}
    state["logit_scale"] = torch.tensor(math.log(1 / info.temperature))
    _save(folder / CLIP_WEIGHTS, state)
    candidates = _squeezes(student, info)
    best: tuple[float, Squeeze] | None = None
    for squeeze in candidates if len(candidates) > 1 else []:
        write_json(folder / OPEN_CLIP_CONFIG, _config(student, info, tower, squeeze))
        near = nearest(load_clip(folder))
        if best is None or near > best[0]:
            best = near, squeeze
    write_json(folder / OPEN_CLIP_CONFIG, _config(student, info, tower, best[1] if best else candidates[0]))
    return load_clip(folder)


def load_clip(folder: Path) -> StudentClip:
    """Return a model's folder as open_clip loads it."""
    return StudentClip(teacher=load_teacher(f"{LOCAL_DIR}{folder}"))


def check_texts(clip: StudentClip, texts: Sequence[str], rows: NDArray[np.float32]) -> float:
    """Return the least cosine of texts' rows by the tower with the raw ones that the cache has [T, D].

    UserError where it is another tower.
    """
    least = float((clip.texts(texts) * unit(rows)).sum(axis=1).min())
    # Not "less than": what is not a number is not alike.
    if not least >= ALIKE:
        raise UserError(
            f"the kept text tower gives class texts other rows than the cache has (cosine {least:.3f})",
            fix=f"make the cache again with --keep-text-tower, or {LEAVE_IT_OUT}.",
        )
    return least


def _squeezes(student: TimmStudent, info: ModelInfo) -> list[Squeeze]:
    """Return the ways there are to come near a squash to R pixels of which the middle S are kept."""
    steps = info.preprocessing
    if steps.crop == steps.resize:
        return [Squeeze(mode="squash", side=steps.crop)]
    # A convolution takes what the crop would cut off as well, at the scale that it learnt.
    sides = [steps.crop] if student.takes_one_size else [steps.crop, steps.resize]
    return [Squeeze(mode=mode, side=side) for side in sides for mode in ("squash", "shortest")]


def _config(student: TimmStudent, info: ModelInfo, tower: TextTower, squeeze: Squeeze) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": info.embed_dim,
            "quick_gelu": tower.config["quick_gelu"],
            "custom_text": True,
            "vision_cfg": {
                "timm_model_name": student.name,
                "timm_model_pretrained": False,
                "timm_pool": student.pool,
                "timm_proj": "",  # the projection is the network's own last layer
                "image_size": squeeze.side,
            },
            "text_cfg": tower.config["text_cfg"],
        },
        "preprocess_cfg": {
            "mean": [*info.preprocessing.mean],
            "std": [*info.preprocessing.std],
            "interpolation": "bilinear",
            "resize_mode": squeeze.mode,
        },
    }


def _save(path: Path, state: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save

    numbers = save(
        {name: value.contiguous().clone() for name, value in state.items()}, metadata={"format": "pt"}
    )
    with replacing(path) as temporary:
        temporary.write_bytes(numbers)
