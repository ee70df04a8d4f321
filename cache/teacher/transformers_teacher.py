"""Teachers of transformers: CLIP and SigLIP, in a folder or of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Before transformers, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError, some_of
from cache.runtime.hub_models import check_installed, import_transformers, quiet_transformers
from cache.runtime.transfer import put_on
from cache.store.spec import HF_HUB, SQUASH, TeacherSpec
from cache.teacher.any_shape import squashed
from cache.teacher.folder_tokenizer import NAMES
from cache.teacher.image_towers import chosen_precision
from cache.teacher.model_files import CONFIG, file_of
from cache.teacher.state_files import check_asked, fitting, read_state, sha256_without_code
from cache.teacher.teacher import DTYPES, Asked, PatchTokens, Teacher
from cache.teacher.transformers_config import Architecture, check_size, read_architecture, read_json
from cache.teacher.transformers_pictures import ALONE, WHOLE, Pictures, read_pictures
from cache.teacher.transformers_texts import TransformersTexts, tokenizer_of

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
# Of several files that are one model.
INDEX = ".index.json"
# Of older versions, which saved what can be counted.
COUNTED = ".position_ids"


@dataclass(frozen=True, kw_only=True)
class TransformersImages:
    """The image side of a CLIP or SigLIP of transformers."""

    network: Any

    def embed(self, images_B3HW: Tensor) -> Tensor:
        """Return raw embeddings [B, D]."""
        found = self.network.get_image_features(pixel_values=images_B3HW)
        embedded: Tensor = found if isinstance(found, Tensor) else found.pooler_output
        return embedded

    def patch_tokens(self) -> PatchTokens | None:
        """Return where the patches' embeddings come from; None of SigLIP, which learnt its pooling."""
        visual, project = self.network.vision_model, getattr(self.network, "visual_projection", None)
        if project is None:
            return None
        return visual.encoder.layers[-1], lambda tokens: project(visual.post_layernorm(tokens[:, 1:]))

    @property
    def nbytes(self) -> int:
        """How many bytes the weights of its image tower have."""
        return sum(part.nbytes for part in self.network.vision_model.parameters())


def load_transformers(asked: Asked) -> Teacher:
    """Load a CLIP or SigLIP that transformers' ``save_pretrained`` wrote, from a folder or repository.

    Raises
    ------
    UserError
        If a file is missing, does not fit the others or asks for code, or a package is not installed.
    """
    check_installed(f"the model {asked.model}")
    folder = _folder_of(asked.model)
    architecture = read_architecture(folder / CONFIG)
    pictures = read_pictures(folder, architecture.model_type, image_size=architecture.vision["image_size"])
    weights = _weights_of(asked.model, folder)
    sha256 = _checksum(weights)
    check_asked(weights[0], sha256, asked.weights_sha256)
    tokenizer = tokenizer_of(folder, architecture)
    precision = chosen_precision(asked.precision, asked.device)
    network = _build(architecture, weights).to(DTYPES[precision])
    put_on(network, asked.device, asked.model)
    if asked.compile:
        network.vision_model.compile()
    texts = TransformersTexts.of_model(network, tokenizer, architecture)
    with torch.inference_mode():
        embed_dim = texts.embed(texts.tokens(["a photo"])[0]).shape[1]
    squash = asked.preprocessing == SQUASH
    side = pictures.image_size[0]  # it is square
    return Teacher(
        spec=TeacherSpec(
            model=asked.model,
            pretrained="its own",
            architecture=_digest(architecture, pictures),
            weights_sha256=sha256,
            tokenizer=tokenizer.sha256,
            precision=precision,
            preprocessing=asked.preprocessing,
            image_size=pictures.image_size,
            mean=pictures.mean,
            std=pictures.std,
            interpolation=pictures.interpolation,
            resize_mode=pictures.mode,
            fill_color=0,
        ),
        transform=squashed(side, mean=pictures.mean, std=pictures.std) if squash else pictures.transform(),
        device=asked.device,
        embed_dim=embed_dim,
        images=TransformersImages(network=network),
        texts=texts,
    )


def _digest(architecture: Architecture, pictures: Pictures) -> str:
    """Return what names the network, and what of the preprocessing a spec has no field for."""
    return digest({**asdict(architecture), "resized": pictures.resized, "library": "transformers"})


def _folder_of(model: str) -> Path:
    """Return the folder that a model's small files lie in; those of a repository are downloaded."""
    config = file_of(model, CONFIG)
    if config is None:
        raise UserError(f"{model} has no {CONFIG}", fix="give a folder that save_pretrained wrote.")
    if model.startswith(HF_HUB):
        for name in (WHOLE, ALONE, *NAMES):
            _optional(model, name)
    return config.parent


def _optional(model: str, name: str) -> Path | None:
    """Return a file that not every model has; without a network what is not here is taken for missing."""
    try:
        return file_of(model, name)
    except UserError:
        return None


def _weights_of(model: str, folder: Path) -> list[Path]:
    """Return the files of a model's weights: one, or those that an index lists."""
    file = file_of(model, *(f"{name}{ending}" for name in WEIGHTS for ending in ("", INDEX)))
    if file is None:
        raise UserError(
            f"{folder} has no weights file ({' or '.join(WEIGHTS)})",
            fix="put the model's weights beside its config.json.",
        )
    return _listed(model, file) if file.name.endswith(INDEX) else [file]


def _listed(model: str, index: Path) -> list[Path]:
    names = read_json(index).get("weight_map")
    listed = sorted({str(name) for name in names.values()}) if isinstance(names, dict) else []
    if not listed or any(name in (".", "..") or Path(name).name != name for name in listed):
        raise UserError(f"{index} lists no files that lie beside it", fix="save the model again.")
    files = {name: file_of(model, name) for name in listed}
    if missing := [name for name, file in files.items() if file is None]:
        raise UserError(
            f"{index} lists {missing[0]}, which is not there ({len(missing)} of {len(listed)} are missing)",
            fix="fetch the whole model again.",
        )
    return [file for file in files.values() if file]


def _checksum(weights: Sequence[Path]) -> str:
    """Return what names the weights, of one file its SHA-256; UserError where one may be a program."""
    checksums = [sha256_without_code(file) for file in weights]
    return checksums[0] if len(checksums) == 1 else digest(checksums)


def _build(architecture: Architecture, weights: Sequence[Path]) -> Any:
    """Return the network with its weights, frozen, in float32."""
    held = sum(file.stat().st_size for file in weights)
    where = str(weights[0].parent / CONFIG)
    check_size((architecture.text, architecture.vision), held, weights=str(weights[0]), where=where)
    transformers = import_transformers()
    made = {"clip": transformers.CLIPModel, "siglip": transformers.SiglipModel}[architecture.model_type]
    with fitting(weights[0], where):
        with quiet_transformers():
            network: nn.Module = made(architecture.config())
        state: dict[str, Tensor] = {}
        for file in weights:
            state |= read_state(file)
        own = network.state_dict()
        state = {key: value for key, value in state.items() if key in own or not key.endswith(COUNTED)}
        if odd := _odd(own, state):
            raise ValueError(odd)
        network.load_state_dict(state)
    return network.eval().requires_grad_(False)


def _odd(own: dict[str, Tensor], state: dict[str, Tensor]) -> str:
    """Return in words how weights differ from a network's in their names and shapes; "" where they do not."""
    lacking, more = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    other = [key for key in own.keys() & state.keys() if own[key].shape != state[key].shape]
    words = {"lacks": lacking, "has besides": more, "has in another shape": sorted(other)}
    return "; ".join(f"it {how} {some_of(names, 1)}" for how, names in words.items() if names)
