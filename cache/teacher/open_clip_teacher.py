"""Teachers of open_clip: any of its models, by its name, in a folder or of the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import open_clip
from open_clip.transform import PreprocessCfg, image_transform_v2

from cache.runtime.errors import UserError, reason_of
from cache.runtime.hub_models import check_text_model, lacks_package
from cache.runtime.transfer import put_on
from cache.store.spec import SQUASH, TeacherSpec
from cache.teacher.any_shape import AnyShape, check_squash, squashed
from cache.teacher.config_checks import checked_preprocessing, sides_of
from cache.teacher.eight_bit import eight_bit
from cache.teacher.image_towers import chosen_precision, in_its_layout, patch_tokens_of_timm
from cache.teacher.model_files import OPEN_CLIP_CONFIG
from cache.teacher.open_clip_texts import OpenClipTexts
from cache.teacher.state_files import fitting
from cache.teacher.teacher import Asked, PatchTokens, Teacher
from cache.teacher.tokenizers import load_tokenizer
from cache.teacher.weight_files import load_into
from cache.teacher.weights import TeacherSource, quiet_open_clip, resolve

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


@dataclass(frozen=True, kw_only=True)
class OpenClipImages:
    """The image side of an open_clip model."""

    network: nn.Module
    channels_last: bool

    def embed(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D]."""
        if self.channels_last:
            images_B3HW = images_B3HW.contiguous(memory_format=torch.channels_last)
        return self.network.encode_image(images_B3HW)  # type: ignore[operator, no-any-return]

    def patch_tokens(self) -> PatchTokens | None:
        """Return where the patches' embeddings come from; None of no ViT or other pooling."""
        visual: Any = self.network.visual
        if isinstance(visual, open_clip.transformer.VisionTransformer) and visual.attn_pool is None:
            return visual.transformer, lambda tokens: visual.ln_post(tokens[:, 1:]) @ visual.proj
        if found := patch_tokens_of_timm(getattr(visual, "trunk", None)):
            norm, project = found
            return norm, lambda tokens: visual.head(project(tokens))
        return None

    @property
    def nbytes(self) -> int:
        """How many bytes the weights of its image tower have."""
        visual: Any = self.network.visual
        return sum(part.nbytes for part in visual.parameters())


def load_open_clip(asked: Asked) -> Teacher:
    """Load an open_clip model and its weights, named as for :func:`cache.teacher.weights.resolve`.

    Raises
    ------
    UserError
        As ``resolve``, or if the weights are of another model.
    """
    source = resolve(asked.model, asked.pretrained, weights_sha256=asked.weights_sha256)
    _check_text_tower(source)
    with quiet_open_clip():
        text = source.config["text_cfg"]
        tokenizer = load_tokenizer(text, where=source.name, folder=source.folder)
        network = _build(source, precision := chosen_precision(asked.precision, asked.device), asked.device)
    prepared = PreprocessCfg(**network.visual.preprocess_cfg)  # type: ignore[union-attr, arg-type]
    if asked.compile:
        network.visual.compile()  # type: ignore[operator, union-attr]
    texts = OpenClipTexts.of_model(network, tokenizer, config=source.config)
    with torch.inference_mode():
        embed_dim = texts.embed(texts.tokens(["a photo"])[0]).shape[1]
    visual: Any = network.visual
    transform = _transform(prepared, asked.preprocessing)
    return Teacher(
        spec=TeacherSpec(
            model=asked.model,
            pretrained=asked.pretrained or "its own",
            architecture=source.architecture,
            weights_sha256=source.weights_sha256,
            tokenizer=tokenizer.sha256,
            precision=precision,
            **_prepared_by(prepared, asked.model, asked.preprocessing),
        ),
        transform=transform,
        eight_bit=eight_bit(transform),
        device=asked.device,
        embed_dim=embed_dim,
        images=OpenClipImages(network=network, channels_last=in_its_layout(visual)),
        texts=texts,
    )


def _prepared_by(asked: PreprocessCfg, model: str, preprocessing: str) -> dict[str, Any]:
    """Return all that is done to a picture, as the spec says it; UserError where it cannot be squashed."""
    sides = sides_of(asked.size)
    assert sides is not None  # the image tower was built for them
    if preprocessing == SQUASH:
        check_squash(model, sides)
    return {
        "preprocessing": preprocessing,
        "image_size": sides,
        "mean": tuple(asked.mean),
        "std": tuple(asked.std),
        "interpolation": asked.interpolation,
        "resize_mode": asked.resize_mode,
        "fill_color": asked.fill_color,
    }


def network_of(config: dict[str, Any], **options: Any) -> nn.Module:
    """Return open_clip's network of a config, with random weights; ``options`` are of ``create_model``."""
    # A folder of our own: open_clip reads the config that was checked, and finds no weights beside it.
    with TemporaryDirectory() as folder, quiet_open_clip():
        (Path(folder) / OPEN_CLIP_CONFIG).write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
        return open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False, **options
        )


def _build(source: TeacherSource, precision: str, device: torch.device) -> nn.Module:
    asked = checked_preprocessing(source.preprocessing, where=source.name)
    with fitting(source.weights, source.name):
        network = network_of(source.config, precision=PRECISIONS[precision], force_preprocess_cfg=asked)
        load_into(network, source.weights, source.weights_sha256)
    return put_on(network.eval().requires_grad_(False), device, source.name)


def _check_text_tower(source: TeacherSource) -> None:
    name = source.config["text_cfg"].get("hf_model_name")
    if not name:
        return
    try:
        check_text_model(name)
    except (OSError, ValueError, ImportError) as error:
        raise lacks_package(error, f"the text tower of {source.name}") or UserError(
            f"the text tower {name} of {source.name} cannot be built ({reason_of(error)})",
            fix="give a teacher whose text tower open_clip or transformers has.",
        ) from error


def _transform(asked: PreprocessCfg, preprocessing: str) -> AnyShape:
    sides = sides_of(asked.size)
    assert sides is not None  # the image tower was built for them
    if preprocessing == SQUASH:
        return squashed(sides[0], mean=asked.mean, std=asked.std)  # one side: others were refused
    linear = asked.interpolation == "bilinear"
    return AnyShape(
        then=image_transform_v2(asked, is_train=False),
        sides=sides,
        mode=asked.resize_mode,
        resampling=Image.Resampling.BILINEAR if linear else Image.Resampling.BICUBIC,
    )
