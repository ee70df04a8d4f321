"""Students: every torchvision and timm image classifier by name, its last layer an embedding of any size."""

from __future__ import annotations

import re
from collections import OrderedDict
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from cache.runtime.errors import UserError, nearest_names, reason_of
from cache.runtime.system_errors import read_error
from cache.store.checksums import matches_appended_checksum
from distill.config import StudentConfig

# Auxiliary heads would make the output a tuple while training. The published weights of these two are for
# pixels in -1..1; transform_input turns ImageNet's normalisation into that, and is always on, because a
# state dict does not say whether it was.
_INCEPTION = {"aux_logits": False, "init_weights": True, "transform_input": True}
# How torchvision fetches: numbers alone are loaded, and the file's name says how its checksum begins.
HOW = {"progress": False, "check_hash": True, "weights_only": True}
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
# torchvision's published DenseNets have "denselayer1.norm.1.weight" for "denselayer1.norm1.weight".
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
_VIT_MARKS = (
    *("vit", "deit", "beit", "eva", "swin", "cait", "xcit", "mixer", "former", "hiera", "pit_", "tnt_"),
    *("twins", "volo", "coat", "nest_", "mlp", "pvt", "aimv2"),
)


def start_of(config: StudentConfig, *, starting: bool) -> dict[str, Any]:
    """Return a config's student as :func:`build_student` takes it; its named weights only if ``starting``."""
    return {
        "arch": config.arch,
        "image_size": config.image_size,
        "pretrained": starting and config.pretrained,
        "weights": Path(config.weights) if starting and config.weights else None,
    }


def build_student(
    arch: str, *, embed_dim: int, pretrained: bool = False, weights: Path | None = None, image_size: int = 224
) -> nn.Module:
    """Return a new student: images [B, 3, S, S] float32 -> embeddings [B, embed_dim].

    ``arch`` is a torchvision or timm name; where both have it, torchvision's: ``timm:NAME`` and
    ``torchvision:NAME`` choose. The last layer is new; with ``pretrained`` the others start from the
    library's own named weights (downloaded), with ``weights`` from a local state dict (``.pt``, ``.pth``,
    ``.safetensors``): a last layer of another size is new, anything else must fit. ``image_size`` is the
    input's side in pixels. UserError if no model has the name, it cannot take that size, or the weights are
    missing or do not fit.
    """
    library, name = resolve(arch)

    def build(outputs: int) -> nn.Module:
        if library == "timm":
            return _build_timm(name, outputs, image_size, pretrained)
        return _build_torchvision(name, outputs, image_size)

    try:
        student = build(embed_dim)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"{arch} cannot be built for {image_size} px images ({reason_of(error)})",
            fix="change student.image_size, often to a multiple of 32 or of the patch size.",
        ) from error
    downloaded = pretrained and library == "torchvision"
    if weights is not None or downloaded:
        state = _download(name) if weights is None else read_state_dict(weights)
        # The last layer is what changes when the number of outputs does, whatever a family calls it.
        one, other = student.state_dict(), build(embed_dim + 1).state_dict()
        head = {key for key in one if one[key].shape != other[key].shape}
        if library == "torchvision":
            state = _as_torchvision_loads(name, state, student, image_size)
        if downloaded:  # ImageNet's classes are no embedding, also where their number is embed_dim
            state = {key: value for key, value in state.items() if key not in head}
        _load_backbone(student, state, head, source=str(weights or f"the published file of {name}"))
    _check_output(student, arch, embed_dim, image_size)
    return student


def resolve(arch: str) -> tuple[str, str]:
    """Return (library, name) of a student; UserError with near names when there is none."""
    library, separator, name = arch.partition(":")
    if not separator:
        library, name = next((lib for lib in _NAMES if arch in _NAMES[lib]()), ""), arch
    if library not in _NAMES or name not in _NAMES[library]():
        names = [other for lib in _NAMES for other in _NAMES[lib]()]
        raise UserError(
            f"no student is called {arch!r}",
            fix=f"{nearest_names(name, names)}give a torchvision or timm model name.",
        )
    return library, name


def _models() -> ModuleType:
    from cache.runtime.torchvision_compat import torchvision  # here, because it takes a second

    models: ModuleType = torchvision.models
    return models


def _timm() -> ModuleType:
    # Before timm, which imports torchvision itself. Here, because both take a second.
    import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
    import timm

    module: ModuleType = timm
    return module


@cache
def torchvision_names() -> frozenset[str]:
    """Return the names of torchvision's classification models."""
    return frozenset(_models().list_models(module=_models()))


@cache
def timm_names() -> frozenset[str]:
    """Return the names of timm's models, with and without the tag of their weights."""
    return frozenset([*_timm().list_models(), *_timm().list_pretrained()])


_NAMES = {"torchvision": torchvision_names, "timm": timm_names}


def family(arch: str) -> str:
    """Return ``vit`` for transformers and their kin, else ``cnn``."""
    name = resolve(arch)[1].lower()
    return "vit" if any(mark in name for mark in _VIT_MARKS) else "cnn"


def _check_size(name: str, image_size: int) -> None:
    """Refuse a side that a torchvision model's patches or windows do not divide."""
    # maxvit: five halvings, then windows of 7.
    step = int(name.rpartition("_")[2]) if name.startswith("vit_") else 224 if name == "maxvit_t" else 1
    if image_size % step:
        below, above = image_size // step * step, (image_size // step + 1) * step
        raise UserError(
            f"{name} cannot take {image_size} px images, only multiples of {step}",
            fix=f"set student.image_size to {f'{below} or ' if below else ''}{above}.",
        )


def _build_torchvision(name: str, outputs: int, image_size: int) -> nn.Module:
    _check_size(name, image_size)
    special: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        special = _INCEPTION
    elif name.startswith("vit_"):
        special = {"image_size": image_size}
    elif name == "maxvit_t":
        special = {"input_size": (image_size, image_size)}
    return _models().get_model(name, weights=None, num_classes=outputs, **special)


def _as_torchvision_loads(
    name: str, state: dict[str, Tensor], student: nn.Module, image_size: int
) -> dict[str, Tensor]:
    """Return a torchvision state dict in today's names, for this image size, without auxiliary heads."""
    state = {
        _OLD_DENSENET.sub(r"\1\2", key): value
        for key, value in state.items()
        if not key.startswith(_AUXILIARY)
    }
    if name.startswith("vit_") and "encoder.pos_embedding" in state:
        resized = _models().vision_transformer.interpolate_embeddings
        state = resized(image_size, int(student.patch_size), OrderedDict(state))  # type: ignore[arg-type]
    return state


def _download(name: str) -> dict[str, Tensor]:
    try:
        return dict(_models().get_model_weights(name).DEFAULT.get_state_dict(**HOW))
    except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is not the published one
        raise _no_download(name, error) from error


def _no_download(name: str, error: Exception) -> UserError:
    return UserError(
        f"the weights of {name} could not be downloaded ({reason_of(error)})",
        fix="connect to the network, give a local file with student.weights, or train from scratch.",
    )


def _build_timm(name: str, outputs: int, image_size: int, pretrained: bool) -> nn.Module:
    timm = _timm()
    student: Any
    sized: dict[str, Any] = {"img_size": image_size}
    try:
        student = timm.create_model(name, num_classes=outputs, **sized)
    except TypeError as error:
        # Only models of a fixed input size know the argument; the others take any.
        if "img_size" not in str(error):
            raise
        sized = {}
        student = timm.create_model(name, num_classes=outputs)
    if not pretrained:
        return student
    try:
        student = timm.create_model(name, pretrained=True, num_classes=outputs, **sized)
    except Exception as error:  # the hub's client has a family of errors of its own
        raise _no_download(name, error) from error
    if student.pretrained_cfg.get("num_classes") == outputs:
        student.reset_classifier(outputs)  # timm keeps ImageNet's last layer where it fits
    return student


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file; nothing in it is executed.

    UserError if it is missing or holds no state dict.
    """
    if not path.is_file():
        raise UserError(f"the weights file {path} does not exist", fix="check student.weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        if matches_appended_checksum(path) is False:
            raise ValueError("it differs from its checksum")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and safetensors errors, one meaning
        if refused := read_error(path, error):
            raise refused from error
        raise UserError(
            f"{path} cannot be read as weights ({reason_of(error)})", fix="save a plain state dict."
        ) from error
    for wrapper in ("state_dict", "model", "student"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict", fix="save model.state_dict().")
    # What DistributedDataParallel and torch.compile put before every name.
    return {key.removeprefix("module.").removeprefix("_orig_mod."): value for key, value in state.items()}


def _load_backbone(student: nn.Module, state: dict[str, Tensor], head: set[str], *, source: str) -> None:
    own = student.state_dict()
    kept: OrderedDict[str, Tensor] = OrderedDict()
    wrong = []
    for key, value in state.items():
        if key not in own or value.shape == own[key].shape:
            kept[key] = value
        elif key not in head:
            wrong.append(f"{key} {tuple(value.shape)} for {tuple(own[key].shape)}")
    # Modules rename what older files call otherwise, and MNASNet does not load without its version.
    kept._metadata = {"": own._metadata[""]}  # type: ignore[attr-defined]
    differences = {"of another shape": wrong}
    if not wrong:
        # Not strict, because the last layer may be missing; everything else is looked at below.
        left = student.load_state_dict(kept, strict=False)
        missing = [key for key in left.missing_keys if key not in head]
        differences = {"missing": missing, "unknown": left.unexpected_keys}
    differing = [f"{what}: {', '.join(ks[:3])} ({len(ks)})" for what, ks in differences.items() if ks]
    if differing:
        raise UserError(
            f"{source} is not of this student ({'; '.join(differing)})",
            fix="give weights of the same architecture.",
        )


@torch.no_grad()
def probed(student: nn.Module, channels: int, side: int) -> Any:
    """Return what a student that is judged gives of one image of zeros; it is left as it was."""
    training = student.training
    try:
        return student.eval()(torch.zeros(1, channels, side, side))
    finally:
        student.train(training)


def _check_output(student: nn.Module, arch: str, embed_dim: int, image_size: int) -> None:
    try:
        output = probed(student, 3, image_size)
    except (RuntimeError, AssertionError, ValueError) as error:
        own = getattr(student, "pretrained_cfg", {}).get("input_size", (0,))[-1]  # timm's
        hint = f"set student.image_size to {own}, its own size" if own else "give a larger student.image_size"
        raise UserError(
            f"{arch} cannot take {image_size} px images ({reason_of(error)})",
            fix=f"{hint}, or one that its patches divide.",
        ) from error
    shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
    if shape != (1, embed_dim):
        raise UserError(
            f"{arch} gives outputs {shape}, expected (1, {embed_dim})", fix="choose another student."
        )
