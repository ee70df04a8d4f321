"""Teachers of timm: networks of images alone, such as DINOv2 and DINOv3, which read no texts."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

# Before timm, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import timm.data

from cache.runtime.errors import UserError, reason_of
from cache.runtime.transfer import put_on
from cache.store.spec import SQUASH, TeacherSpec
from cache.teacher.any_shape import AnyShape, check_squash, squashed
from cache.teacher.eight_bit import eight_bit
from cache.teacher.image_towers import chosen_precision, in_its_layout, patch_tokens_of_timm
from cache.teacher.teacher import DTYPES, Asked, PatchTokens, Teacher
from cache.teacher.timm_weights import FIX, TimmSource, built, resolve_timm

# How timm's crop modes make a picture the input, in the words of AnyShape.
MODES = {"center": "shortest", "squash": "squash", "border": "longest"}


@dataclass(frozen=True, kw_only=True)
class TimmImages:
    """A network of timm's without its classifier: its embedding is what that would be given."""

    network: nn.Module
    channels_last: bool

    def embed(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D]."""
        if self.channels_last:
            images_B3HW = images_B3HW.contiguous(memory_format=torch.channels_last)
        embeddings: Tensor = self.network(images_B3HW)
        return embeddings

    def patch_tokens(self) -> PatchTokens | None:
        """Return where the patches' embeddings come from; None of a network that is no ViT."""
        return patch_tokens_of_timm(self.network)

    @property
    def nbytes(self) -> int:
        """How many bytes its weights have."""
        return sum(part.nbytes for part in self.network.parameters())


def load_timm(asked: Asked) -> Teacher:
    """Load a network of timm's: ``timm:NAME`` with weights, or what has timm's config.json beside them.

    Raises
    ------
    UserError
        As :func:`cache.teacher.timm_weights.resolve_timm`, or if its weights are of another model, or it
        gives no embeddings.
    """
    source = resolve_timm(asked)
    network = built(source)
    data = timm.data.resolve_data_config(pretrained_cfg=source.cfg, model=network)
    sides = (int(data["input_size"][1]), int(data["input_size"][2]))
    if asked.preprocessing == SQUASH:
        check_squash(asked.model, sides)
    precision = chosen_precision(asked.precision, asked.device)
    put_on(network.to(DTYPES[precision]), asked.device, asked.model)
    images = TimmImages(network=network, channels_last=in_its_layout(network))
    embed_dim = _embed_dim(images, asked, sides, precision)
    if asked.compile:
        network.compile()
    transform = _transform(data, sides, asked.preprocessing)
    return Teacher(
        spec=_spec(source, asked, data, precision=precision),
        transform=transform,
        eight_bit=eight_bit(transform),
        device=asked.device,
        embed_dim=embed_dim,
        images=images,
    )


def _spec(source: TimmSource, asked: Asked, data: dict[str, Any], *, precision: str) -> TeacherSpec:
    return TeacherSpec(
        model=asked.model,
        pretrained=source.pretrained,
        architecture=source.digest,
        weights_sha256=source.weights_sha256,
        tokenizer="",
        preprocessing=asked.preprocessing,
        image_size=tuple(data["input_size"][1:]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        interpolation=data["interpolation"],
        # What of a picture is left is as much of what is done to it.
        resize_mode=f"{data['crop_mode']} {data['crop_pct']:g}",
        fill_color=0,
        precision=precision,
    )


@torch.inference_mode()
def _embed_dim(images: TimmImages, asked: Asked, sides: tuple[int, int], precision: str) -> int:
    blank = torch.zeros(2, 3, *sides, dtype=DTYPES[precision], device=asked.device)
    try:
        rows = images.embed(blank)
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        raise UserError(
            f"{asked.model} cannot take images of {sides[0]} x {sides[1]} px ({reason_of(error)})", fix=FIX
        ) from error
    if not isinstance(rows, Tensor) or rows.ndim != 2:
        raise UserError(
            f"{asked.model} gives no embedding of an image", fix="choose a network that classifies images."
        )
    return rows.shape[1]


def _transform(data: dict[str, Any], sides: tuple[int, int], preprocessing: str) -> AnyShape:
    if preprocessing == SQUASH:
        return squashed(sides[0], mean=data["mean"], std=data["std"])  # one side: others were refused
    height, width = (math.floor(side / data["crop_pct"]) for side in sides)
    return AnyShape(
        then=timm.data.create_transform(**data, is_training=False),
        sides=(height, width),
        mode=MODES[data["crop_mode"]],
        resampling=getattr(Image.Resampling, data["interpolation"].upper()),
    )
