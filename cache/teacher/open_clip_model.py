"""The teacher: any open_clip model. Never imported by training."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # isort: split

import open_clip
from open_clip.transform import PreprocessCfg, image_transform_v2

from cache.runtime.devices import check_compiler
from cache.runtime.errors import UserError, reason_of
from cache.runtime.hub_models import check_text_model, fix_of
from cache.runtime.system_errors import read_error
from cache.runtime.transfer import fetched_later, moved_beside
from cache.store.spec import SQUASH, SQUASH_SIZE, TeacherSpec
from cache.teacher.any_shape import AnyShape
from cache.teacher.config_checks import checked_preprocessing, sides_of
from cache.teacher.short_texts import context_of, lengths
from cache.teacher.tokenizers import load_tokenizer
from cache.teacher.weight_files import load_into
from cache.teacher.weights import CONFIG, TeacherSource, quiet_open_clip, resolve

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
REGIONS_PER_SIDE = 7


@dataclass(frozen=True, kw_only=True)
class Teacher:
    """A loaded teacher: embeds preprocessed images and texts into one space of ``embed_dim`` numbers."""

    spec: TeacherSpec
    config: dict[str, Any]
    model: nn.Module
    tokenizer: Any
    transform: Callable[[Any], Tensor]
    device: torch.device
    embed_dim: int
    context_length: int
    channels_last: bool = False

    def embed_images(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D] float32 on the CPU for preprocessed images [B, 3, H, W] float32."""
        return self.start_images(images_B3HW)()

    @torch.inference_mode()
    def start_images(self, images_B3HW: Tensor) -> Callable[[], Tensor]:
        """Begin :meth:`embed_images`, and return what waits for the embeddings.

        A GPU computes while its caller goes on; so start the next batch before waiting for this one.
        """
        images = moved_beside(images_B3HW, self.device, DTYPES[self.spec.precision])
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        return fetched_later(self.model.encode_image(images).float())  # type: ignore[operator]

    def check_regions(self) -> None:
        """Make sure that :meth:`embed_regions` can work; UserError else."""
        _patch_tokens(self.model.visual, self.spec.model)

    @torch.inference_mode()
    def embed_regions(self, images_B3HW: Tensor) -> tuple[Tensor, Tensor]:
        """Return embeddings as :meth:`embed_images` does, and those of 7x7 regions, [B, 49, D], row by row.

        A region is the mean of the patch tokens in it, each put through the tower's final norm and
        projection in place of its class token.

        Raises
        ------
        UserError
            If the image tower is no ViT, or its pooling is a learnt one.
        """
        tokens: list[Tensor] = []
        last, project = _patch_tokens(self.model.visual, self.spec.model)
        hook = last.register_forward_hook(lambda module, given, output: tokens.append(output))
        try:
            embeddings = self.embed_images(images_B3HW)
        finally:
            hook.remove()
        patches = project(tokens[0]).float()
        count, (height, width) = patches.shape[1], images_B3HW.shape[2:]
        down = round(math.sqrt(count * height / width))  # patches are square
        grid = patches.transpose(1, 2).unflatten(2, (down, count // down))
        pooled = F.adaptive_avg_pool2d(grid, REGIONS_PER_SIDE)
        return embeddings, pooled.flatten(2).transpose(1, 2).cpu()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str], *, batch_size: int = 256) -> tuple[Tensor, int]:
        """Return raw embeddings [T, D] float32 on the CPU, and how many texts had to be truncated.

        Texts are embedded in order of length, so that little of a batch is padding and the batches are
        the same whatever order they come in, and returned in the order given.
        """
        rows = torch.empty(len(texts), self.embed_dim)
        if not texts:  # of a row group of which no row is seen any more
            return rows, 0
        tokens = self.tokenizer(list(texts))
        length = lengths(self.model, tokens).tolist()
        order = sorted(range(len(texts)), key=lambda i: (length[i], texts[i]))
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            longest = length[chosen[-1]]
            with context_of(self.model, longest):
                embedded = self.model.encode_text(tokens[chosen, :longest].to(self.device))  # type: ignore[operator]
            rows[chosen] = embedded.float().cpu()
        return rows, sum(self.is_too_long(text) for text in texts)

    def is_too_long(self, text: str) -> bool:
        """Say whether the tokenizer cuts a text to fit its context."""
        if hasattr(self.tokenizer, "sot_token_id"):
            return len(self.tokenizer.encode(text)) + 2 > self.context_length
        tokens = self.tokenizer.tokenizer(self.tokenizer.clean_fn(text))["input_ids"]
        return len(tokens) > self.context_length


def load_teacher(
    model: str,
    *,
    pretrained: str | None = None,
    preprocessing: str = "model",
    precision: str = "auto",
    compile: bool = False,
    device: torch.device | str = "cpu",
    weights_sha256: str | None = None,
) -> Teacher:
    """Load an open_clip model and its weights, named as for :func:`cache.teacher.weights.resolve`.

    Parameters
    ----------
    preprocessing
        ``model``: the model's own. ``squash``: 256 x 256 first, as the original research code.
    precision
        ``float32``, ``bfloat16``, ``float16``, or ``auto``: float32 on the CPU, bfloat16 on CUDA
        devices that have it, else float16.
    compile
        Whether the image tower goes through torch.compile: the same rows but for rounding.

    Raises
    ------
    UserError
        As ``resolve``, if the weights are of another model, or if there is nothing to ``compile`` with.
    """
    device = torch.device(device)
    if compile:
        check_compiler(device)
    source = resolve(model, pretrained, weights_sha256=weights_sha256)
    with quiet_open_clip():
        network = _build(source, precision := _precision(precision, device), device)
        tokenizer, tokenizer_digest = load_tokenizer(source)
    asked = PreprocessCfg(**network.visual.preprocess_cfg)  # type: ignore[union-attr, arg-type]
    if compile:
        network.visual.compile()  # type: ignore[operator, union-attr]
    with torch.inference_mode():
        embed_dim = network.encode_text(tokenizer(["a photo"]).to(device)).shape[1]  # type: ignore[operator]
    return Teacher(
        spec=TeacherSpec(
            model=model,
            pretrained=pretrained or "its own",
            architecture=source.architecture,
            weights_sha256=source.weights_sha256,
            tokenizer=tokenizer_digest,
            precision=precision,
            **_prepared_by(asked, model, preprocessing),
        ),
        config=source.config,
        model=network,
        tokenizer=tokenizer,
        transform=_transform(asked, preprocessing),
        device=device,
        embed_dim=embed_dim,
        context_length=int(getattr(tokenizer, "context_length", 77)),
        channels_last=_prefers_channels_last(network),
    )


def _prepared_by(asked: PreprocessCfg, model: str, preprocessing: str) -> dict[str, Any]:
    """Return all that is done to a picture, as the spec says it; UserError where it cannot be squashed."""
    sides = sides_of(asked.size)
    assert sides is not None  # the image tower was built for them
    if preprocessing == SQUASH and sides[0] != sides[1]:
        raise UserError(
            f"{model} takes images of {sides[0]} x {sides[1]} px, and --preprocess squash makes square ones",
            fix="leave --preprocess out: the model's own takes both sides.",
        )
    return {
        "preprocessing": preprocessing,
        "image_size": sides,
        "mean": tuple(asked.mean),
        "std": tuple(asked.std),
        "interpolation": asked.interpolation,
        "resize_mode": asked.resize_mode,
        "fill_color": asked.fill_color,
    }


def _patch_tokens(visual: Any, model: str) -> tuple[nn.Module, Callable[[Tensor], Tensor]]:
    """Return the module whose output are all tokens, and what makes the patches' embeddings of them."""
    trunk: Any = getattr(visual, "trunk", None)
    if isinstance(visual, open_clip.transformer.VisionTransformer) and visual.attn_pool is None:
        return visual.transformer, lambda tokens: visual.ln_post(tokens[:, 1:]) @ visual.proj
    if hasattr(trunk, "num_prefix_tokens") and getattr(trunk, "attn_pool", None) is None:
        first = trunk.num_prefix_tokens
        return trunk.norm, lambda tokens: visual.head(trunk.head(trunk.fc_norm(tokens[:, first:])))
    raise UserError(
        f"the image tower of {model} has no patch tokens that can be embedded one by one",
        fix="leave --regions out, or choose a ViT teacher without attention pooling.",
    )


def _prefers_channels_last(network: nn.Module) -> bool:
    """Put a convolutional image tower in the layout that it is fast in; a ViT gains nothing."""
    if sum(isinstance(module, nn.Conv2d) for module in network.visual.modules()) < 3:  # type: ignore[union-attr]
        return False
    network.visual.to(memory_format=torch.channels_last)  # type: ignore[union-attr, call-overload]
    return True


def network_of(config: dict[str, Any], **options: Any) -> nn.Module:
    """Return open_clip's network of a config, with random weights; ``options`` are of ``create_model``."""
    # A folder of our own: open_clip reads the config that was checked, and finds no weights beside it.
    with TemporaryDirectory() as folder, quiet_open_clip():
        (Path(folder) / CONFIG).write_text(json.dumps({"model_cfg": config}), encoding="utf-8")
        return open_clip.create_model(
            f"local-dir:{folder}", load_weights=False, pretrained_text=False, **options
        )


def _build(source: TeacherSource, precision: str, device: torch.device) -> nn.Module:
    asked = checked_preprocessing(source.preprocessing, where=source.name)
    _check_text_tower(source)
    try:
        network = network_of(
            source.config, precision=PRECISIONS[precision], device=device, force_preprocess_cfg=asked
        )
        load_into(network, source.weights, source.weights_sha256)
    except UserError:
        raise
    # Broken files and wrong models surface as KeyError, RuntimeError, UnpicklingError and others.
    except Exception as error:
        if refused := read_error(source.weights, error):
            raise refused from error
        raise UserError(
            f"the weights {source.weights} do not fit {source.name} ({reason_of(error)})",
            fix="give the checkpoint of this very model, or the model that the checkpoint was made with.",
        ) from error
    return network.eval().requires_grad_(False)


def _check_text_tower(source: TeacherSource) -> None:
    name = source.config["text_cfg"].get("hf_model_name")
    if not name:
        return
    try:
        check_text_model(name)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"the text tower {name} of {source.name} cannot be built ({reason_of(error)})",
            fix=fix_of(error, "give a teacher whose text tower open_clip or transformers has."),
        ) from error


def _precision(wanted: str, device: torch.device) -> str:
    if wanted != "auto" or device.type != "cuda":
        return "float32" if wanted == "auto" else wanted
    return "bfloat16" if torch.cuda.is_bf16_supported() else "float16"


def _transform(asked: PreprocessCfg, preprocessing: str) -> AnyShape:
    sides = sides_of(asked.size)
    assert sides is not None  # the image tower was built for them
    if preprocessing == SQUASH:
        both = (SQUASH_SIZE, SQUASH_SIZE)
        return AnyShape(then=_squash(asked), sides=both, mode=SQUASH, resampling=Image.Resampling.BILINEAR)
    linear = asked.interpolation == "bilinear"
    return AnyShape(
        then=image_transform_v2(asked, is_train=False),
        sides=sides,
        mode=asked.resize_mode,
        resampling=Image.Resampling.BILINEAR if linear else Image.Resampling.BICUBIC,
    )


def _squash(asked: PreprocessCfg) -> Callable[[Any], Tensor]:
    transforms, size = torchvision.transforms, asked.size  # one side: others were refused
    return transforms.Compose(
        [
            transforms.Resize((SQUASH_SIZE, SQUASH_SIZE)),
            transforms.Resize(size, interpolation=transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(mean=asked.mean, std=asked.std),
        ]
    )
