"""An untrained student: built by torchvision, timm or a function of one's own, to any number of outputs."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from cache.runtime.downloads import url_file
from cache.runtime.errors import UserError, reason_of
from cache.runtime.own_code import OwnCode
from cache.runtime.system_errors import kept_fix
from distill.config import SCRATCH
from distill.data.normalisation import IMAGENET, Normalisation
from distill.settings import parsed_value
from distill.student.names import HUB, OWN, TIMM, TORCHVISION, resolve, timm_module, torchvision_models

# Auxiliary heads would make the output a tuple while training. The published weights of these two are for
# pixels in -1..1; transform_input turns ImageNet's normalisation into that, and is always on, because a
# state dict does not say whether it was.
_INCEPTION = {"aux_logits": False, "init_weights": True, "transform_input": True}
# How torchvision fetches: numbers alone are loaded, and the file's name says how its checksum begins.
HOW = {"progress": False, "check_hash": True, "weights_only": True}
# The first digits of a file's SHA-256, which torchvision has in its name.
_DIGITS = re.compile(r"-([0-9a-f]{8,})\.")
_AUXILIARY = ("AuxLogits.", "aux1.", "aux2.")
# torchvision's published DenseNets have "denselayer1.norm.1.weight" for "denselayer1.norm1.weight".
_OLD_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")
# What is not a network's own affair: its outputs and input, which distill decides, and weights elsewhere.
_OURS = (
    *("weights", "num_classes", "embed_dim", "image_size", "img_size", "input_size", "in_chans"),
    *(
        "pretrained",
        "pretrained_cfg",
        "pretrained_cfg_overlay",
        "checkpoint_path",
        "cache_dir",
        "features_only",
    ),
)
START = f"give a local file of weights with --start FILE, or --start {SCRATCH}."


@dataclass(frozen=True, kw_only=True)
class Hub:
    """What the Hugging Face hub says of a model of timm's: its name there, its arguments, its normalisation.

    A run keeps the first two, so that it can be opened without the hub.
    """

    name: str
    arguments: dict[str, Any] = field(default_factory=dict)
    normalisation: Normalisation | None = None

    def to_json(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"name": self.name, "arguments": self.arguments}

    @classmethod
    def from_json(cls, value: Mapping[str, Any], *, where: str) -> Self | None:
        """Read what a checkpoint keeps; None where it keeps none, UserError where it is no such thing."""
        if not value:
            return None
        name, arguments = value.get("name"), value.get("arguments")
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise UserError(f"{where} does not say what its student is", fix="train the run again.")
        return cls(name=name, arguments=arguments)


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What builds a student: its library, its name there, its arguments; ``arch`` is what was asked for."""

    arch: str
    library: str
    name: str
    arguments: dict[str, Any]
    image_size: int
    code: OwnCode | None = None
    hub: Hub | None = None

    @classmethod
    def of(
        cls, arch: str, kwargs: Sequence[str], image_size: int, *, code: OwnCode | None, hub: Hub | None
    ) -> Self:
        """Resolve a name; ``hub`` is what the hub said of it before, and is asked for where it is not given.

        UserError if no model has the name, or it is of one's own code and ``code`` is not given.
        """
        library, name = resolve(arch)
        if library == OWN and code is None:
            raise UserError(
                f"the student {arch} is code, which is run only where the command names it",
                fix=f"give that file: --code {arch.rpartition(':')[0]}.",
            )
        arguments = {}
        for argument in kwargs:
            key, _, value = argument.partition("=")
            arguments[key] = parsed_value(value)
        if library == HUB:
            hub = hub or _asked_of_hub(name)
            (library, name), arguments = resolve(f"{TIMM}:{hub.name}"), {**hub.arguments, **arguments}
        for key in arguments:
            if key in _OURS:
                raise UserError(
                    f"student.kwargs names {key}, which is not the network's own affair",
                    fix="leave it out: outputs, input size and weights have settings of their own.",
                )
        return cls(
            arch=arch,
            library=library,
            name=name,
            arguments=arguments,
            image_size=image_size,
            code=code if library == OWN else None,
            hub=hub if arch.startswith(f"{HUB}:") else None,
        )

    def build(self, outputs: int) -> nn.Module:
        """Return a new network of so many outputs; UserError where it cannot be built."""
        try:
            if self.library == OWN:
                return self._of_own(outputs)
            if self.library == TIMM:
                return self._of_timm(self.name, outputs, **self.arguments)
            return self._of_torchvision(outputs)
        except UserError:
            raise
        except Exception as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> Exception:
        """Return what is said of a network that its library does not build; our own bugs as they are."""
        named = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if named is not None and named[1] in self.arguments:
            return UserError(
                f"student.kwargs names {named[1]}, which {self.arch} does not take",
                fix="leave it out, or see the library's own list of the model's arguments.",
            )
        if not self.arguments and not isinstance(error, (ValueError, AssertionError, RuntimeError)):
            return error
        return UserError(
            f"{self.arch} cannot be built for {self.image_size} px images ({reason_of(error)})",
            fix="change student.image_size, often to a multiple of 32 or of the patch size"
            f"{', or student.kwargs' if self.arguments else ''}.",
        )

    def _of_own(self, outputs: int) -> nn.Module:
        assert self.code is not None
        build = self.code.function(self.name, makes="a student", takes="the embedding's size")
        try:
            student = build(outputs, **self.arguments)
        except Exception as error:  # the user's own code may raise anything
            if any(f"unexpected keyword argument '{key}'" in str(error) for key in self.arguments):
                raise
            raise UserError(
                f"{self.arch} cannot be built ({self.code.told(error)})", fix="correct the file."
            ) from error
        if not isinstance(student, nn.Module):
            raise UserError(
                f"{self.arch} gives a {type(student).__name__}, expected a torch.nn.Module",
                fix="return the network.",
            )
        return student

    def _of_torchvision(self, outputs: int) -> nn.Module:
        name, image_size = self.name, self.image_size
        _check_size(name, image_size)
        special = torchvision_arguments(name, image_size) | self.arguments
        return torchvision_models().get_model(name, weights=None, num_classes=outputs, **special)

    def _of_timm(self, name: str, outputs: int, **given: Any) -> nn.Module:
        create: Callable[..., nn.Module] = timm_module().create_model
        try:
            return create(name, num_classes=outputs, img_size=self.image_size, **given)
        except TypeError as error:
            # Only models of a fixed input size know the argument; the others take any.
            if "img_size" not in str(error):
                raise
        return create(name, num_classes=outputs, **given)

    def published(self) -> dict[str, Tensor]:
        """Return the weights that are published of it, fetched if they are not here; UserError without."""
        if self.library == OWN:
            raise no_weights(self.arch, ValueError("your own code publishes none"))
        if self.library == TORCHVISION:
            return self._download()
        self.build(1)  # what it does not take is no fault of the weights
        try:
            name = self.arch if self.hub else self.name
            return self._of_timm(name, 1, pretrained=True, **self.arguments).state_dict()
        except Exception as error:  # the hub's client has a family of errors of its own
            raise no_weights(self.arch, error) from error

    def normalisation(self, student: nn.Module) -> Normalisation:
        """Return the mean and deviation that its weights were trained with, ImageNet's if unsaid."""
        if self.hub and self.hub.normalisation:
            return self.hub.normalisation
        if self.library != OWN:
            return published_normalisation(self.library, self.name)
        mean, std = getattr(student, "mean", None), getattr(student, "std", None)
        if mean is None and std is None:
            return IMAGENET
        return Normalisation.of(mean, std, where=self.arch)

    def head_of(self, student: nn.Module, outputs: int) -> set[str]:
        """Return the keys of the last layer: what changes when the number of outputs does."""
        one, other = student.state_dict(), self.build(outputs + 1).state_dict()
        return {key for key in one if one[key].shape != other[key].shape}

    def in_todays_names(self, state: dict[str, Tensor], student: nn.Module) -> dict[str, Tensor]:
        """Return a state dict in today's names, for this image size, without auxiliary heads."""
        if self.library != TORCHVISION:
            return state
        state = {
            _OLD_DENSENET.sub(r"\1\2", key): value
            for key, value in state.items()
            if not key.startswith(_AUXILIARY)
        }
        if self.name.startswith("vit_") and "encoder.pos_embedding" in state:
            resized = torchvision_models().vision_transformer.interpolate_embeddings
            size = int(student.patch_size)  # type: ignore[arg-type]
            state = resized(self.image_size, size, OrderedDict(state))
        return state

    def _download(self) -> dict[str, Tensor]:
        weights = torchvision_models().get_model_weights(self.name).DEFAULT
        file = Path(torch.hub.get_dir(), "checkpoints", Path(weights.url).name)
        digits = _DIGITS.search(file.name)
        try:
            # Where torch looks for it: its own download would say nothing in a log.
            url_file(weights.url, file, begins=digits[1] if digits else "")
            return dict(weights.get_state_dict(**HOW))
        except (OSError, RuntimeError) as error:  # RuntimeError: the file's hash is not the published one
            raise no_weights(self.arch, error) from error


def published_normalisation(library: str, name: str) -> Normalisation:
    """Return the mean and deviation that a library's weights of a name were trained with."""
    if library == TORCHVISION:
        told = torchvision_models().get_model_weights(name).DEFAULT.transforms()
    else:
        told = timm_module().get_pretrained_cfg(name, allow_unregistered=True)
    if told is None:
        return IMAGENET
    return Normalisation.of(told.mean, told.std, where=name)


def no_weights(arch: str, error: Exception) -> UserError:
    """Return the error for weights that are published nowhere, or not to be had from here."""
    fix = kept_fix(error) or START
    return UserError(f"the pretrained weights of {arch} cannot be had ({reason_of(error)})", fix=fix)


def _asked_of_hub(name: str) -> Hub:
    timm_module()
    from timm.models import load_model_config_from_hf

    try:
        told, architecture, arguments = load_model_config_from_hf(name)
    except Exception as error:  # the hub's client has a family of errors of its own
        raise UserError(
            f"{HUB}:{name} cannot be read from the Hugging Face hub ({reason_of(error)})",
            fix="connect to the network once, or name a model of timm's with --arch and a local file with "
            "--start FILE.",
        ) from error
    own = None
    if told.get("mean") and told.get("std"):
        own = Normalisation.of(told["mean"], told["std"], where=f"{HUB}:{name}")
    return Hub(name=architecture, arguments=dict(arguments or {}), normalisation=own)


def torchvision_arguments(name: str, image_size: int) -> dict[str, Any]:
    """Return what torchvision has to be told of a network beside its outputs, for images of a side."""
    if name in ("inception_v3", "googlenet"):
        return dict(_INCEPTION)
    if name.startswith("vit_"):
        return {"image_size": image_size}
    return {"input_size": (image_size, image_size)} if name == "maxvit_t" else {}


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
