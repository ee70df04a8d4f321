"""Students: every torchvision and timm image classifier by name, its last layer an embedding of any size."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cache.errors import UserError, nearest_names
from cache.vision import torchvision

# What a family needs besides its number of outputs. These two have auxiliary heads that would make
# the output a tuple while training; the rest take their input size where they are built.
_SPECIAL: dict[str, Callable[[int], dict[str, Any]]] = {
    "inception_v3": lambda size: {"aux_logits": False, "init_weights": True},
    "googlenet": lambda size: {"aux_logits": False, "init_weights": True},
    "maxvit_t": lambda size: {"input_size": (size, size)},
}
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
_VIT_MARKS = ("vit", "deit", "beit", "eva", "swin", "cait", "xcit", "mixer", "transformer")


def build_student(
    arch: str, *, embed_dim: int, pretrained: bool = False, weights: Path | None = None, image_size: int = 224
) -> nn.Module:
    """Return a new student: images [B, 3, S, S] float32 -> embeddings [B, embed_dim].

    Parameters
    ----------
    arch
        A torchvision or timm name; where both have it, torchvision's. ``timm:NAME`` and
        ``torchvision:NAME`` choose.
    embed_dim
        Size of the new last layer.
    pretrained
        Start from the library's own named weights (downloaded); the last layer is new.
    weights
        Start from a local state dict (``.pt``, ``.pth``, ``.safetensors``); a last layer of another
        size is new, anything else must fit.
    image_size
        Input side in pixels.

    Raises
    ------
    UserError
        If no model has the name, it cannot take that size, or the weights are missing or do not fit.
    """
    library, name = resolve(arch)

    def build(outputs: int, named_weights: bool = False) -> nn.Module:
        return _BUILDERS[library](name, outputs, image_size, named_weights)

    try:
        student = build(embed_dim, pretrained)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise UserError(
            f"{arch} cannot be built for {image_size} px images ({_first_line(error)})",
            fix="change student.image_size, often to a multiple of 32 or of the patch size.",
        ) from error
    if weights is not None:
        # The last layer is what changes when the number of outputs does, whatever a family calls it.
        one, other = student.state_dict(), build(embed_dim + 1).state_dict()
        head = {key for key in one if one[key].shape != other[key].shape}
        _load_backbone(student, read_state_dict(weights), head, source=str(weights))
    _check_output(student, arch, embed_dim, image_size)
    return student


def resolve(arch: str) -> tuple[str, str]:
    """Return (library, name) of a student; UserError with near names when there is none."""
    library, separator, name = arch.partition(":")
    if not separator:
        library, name = next((lib for lib in _NAMES if arch in _NAMES[lib]()), ""), arch
    if library not in _NAMES or name not in _NAMES[library]():
        known = [known for lib in _NAMES for known in _NAMES[lib]()]
        raise UserError(
            f"no student is called {arch!r}",
            fix=f"{nearest_names(name, known)}give a torchvision or timm model name.",
        )
    return library, name


@cache
def torchvision_names() -> frozenset[str]:
    """Return the names of torchvision's classification models."""
    return frozenset(torchvision.models.list_models(module=torchvision.models))


@cache
def timm_names() -> frozenset[str]:
    """Return the names of timm's models, with and without the tag of their weights."""
    import timm  # here, because it imports torchvision itself and takes a second

    return frozenset([*timm.list_models(), *timm.list_pretrained()])


_NAMES = {"torchvision": torchvision_names, "timm": timm_names}


def family(arch: str) -> str:
    """Return ``vit`` for transformers and their kin, else ``cnn``."""
    name = resolve(arch)[1].lower()
    return "vit" if any(mark in name for mark in _VIT_MARKS) else "cnn"


def _build_torchvision(name: str, outputs: int, image_size: int, pretrained: bool) -> nn.Module:
    builder = torchvision.models.get_model_builder(name)
    special = _SPECIAL.get(name, lambda size: {})(image_size)
    if name.startswith("vit_"):
        special = {"image_size": image_size}
    student = builder(weights=None, num_classes=outputs, **special)
    if pretrained:
        state = _download(name)
        if name.startswith("vit_"):
            state = torchvision.models.vision_transformer.interpolate_embeddings(
                image_size, student.patch_size, state
            )
        state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY)}
        own = student.state_dict()
        head = {key for key, value in state.items() if key in own and value.shape != own[key].shape}
        _load_backbone(student, state, head, source=f"the weights of {name}")
    return student


def _download(name: str) -> dict[str, Tensor]:
    try:
        return dict(torchvision.models.get_model_weights(name).DEFAULT.get_state_dict(progress=False))
    except OSError as error:
        raise _no_download(name, error) from error


def _no_download(name: str, error: Exception) -> UserError:
    return UserError(
        f"the weights of {name} could not be downloaded ({_first_line(error)})",
        fix="connect to the network, give a local file with student.weights, or train from scratch.",
    )


def _build_timm(name: str, outputs: int, image_size: int, pretrained: bool) -> nn.Module:
    import timm

    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=outputs, img_size=image_size)
    except TypeError as error:
        # Only models of a fixed input size know the argument; the others take any.
        if "img_size" not in str(error):
            raise
    except Exception as error:  # the hub's client has a family of errors of its own
        if pretrained:
            raise _no_download(name, error) from error
        raise
    try:
        return timm.create_model(name, pretrained=pretrained, num_classes=outputs)
    except Exception as error:
        if pretrained:
            raise _no_download(name, error) from error
        raise


_BUILDERS = {"torchvision": _build_torchvision, "timm": _build_timm}


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a weights file; nothing in it is executed.

    Raises
    ------
    UserError
        If it is missing or holds no state dict.
    """
    if not path.is_file():
        raise UserError(f"the weights file {path} does not exist", fix="check student.weights.")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # zip, pickle and safetensors errors, one meaning
        raise UserError(
            f"{path} cannot be read as weights ({_first_line(error)})", fix="save a plain state dict."
        ) from error
    for wrapper in ("state_dict", "model", "student"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UserError(f"{path} holds no state dict", fix="save model.state_dict().")
    return {key.removeprefix("module."): value for key, value in state.items()}


def _load_backbone(student: nn.Module, state: dict[str, Tensor], head: set[str], *, source: str) -> None:
    own = student.state_dict()
    wrong = [
        f"{key} {tuple(state[key].shape)} for {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape and key not in head
    ]
    kept = {key: value for key, value in state.items() if not (key in head and value.shape != own[key].shape)}
    missing = [key for key in own if key not in kept and key not in head]
    surplus = [key for key in kept if key not in own]
    if wrong or missing or surplus:
        parts = [("of another shape", wrong), ("missing", missing), ("unknown", surplus)]
        said = "; ".join(f"{what}: {', '.join(keys[:3])} ({len(keys)})" for what, keys in parts if keys)
        raise UserError(
            f"{source} is not of this student ({said})", fix="give weights of the same architecture."
        )
    student.load_state_dict({**own, **kept})


@torch.no_grad()
def _check_output(student: nn.Module, arch: str, embed_dim: int, image_size: int) -> None:
    training = student.training
    try:
        shape = tuple(student.eval()(torch.zeros(1, 3, image_size, image_size)).shape)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UserError(
            f"{arch} cannot take {image_size} px images ({_first_line(error)})",
            fix="give a larger student.image_size, or one that its patches divide.",
        ) from error
    finally:
        student.train(training)
    if shape != (1, embed_dim):
        raise UserError(
            f"{arch} gives outputs {shape}, expected (1, {embed_dim})", fix="choose another student."
        )


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
