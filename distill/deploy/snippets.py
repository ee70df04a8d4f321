"""What the card's examples for other libraries are filled with, which a test runs as they are printed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from cache.runtime.own_code import own_code_in
from distill.deploy.info import ONNX, WEIGHTS, ModelInfo
from distill.deploy.timm_student import OPEN_CLIP
from distill.settings import parsed_value
from distill.student.architecture import torchvision_arguments
from distill.student.names import TIMM, TORCHVISION, resolve
from distill.student.stages import LINEAR

TFLITE_FILE = "model.tflite"
NAMES = 3


@dataclass(frozen=True, kw_only=True)
class Snippets:
    """Which examples a card has: a file's name or a call's arguments in code, '' of those that it has not.

    ``names`` and ``template`` are code as well; ``first`` is the first pixel that the crop keeps;
    ``other_crop``: open_clip cannot cut photos as the student's own preprocessing does.
    """

    names: str
    template: str
    first: int
    open_clip: str = ""
    timm: str = ""
    torchvision: str = ""
    openvino: str = ""
    tflite: str = ""
    other_crop: bool = False

    @classmethod
    def of(cls, info: ModelInfo) -> Self | None:
        """Return those of a model of photos; None where it has none, or no texts."""
        if info.objects is not None or not info.bank:
            return None
        steps = info.preprocessing
        classes = (*info.id_classes, *info.ood_classes)[:NAMES]
        one = [name for name in info.templates if "{}" in name and name.count("{") == name.count("}") == 1]
        snippets = cls(
            names=repr([" ".join(name.replace("_", " ").split()) for name in classes]),
            template=repr(one[0] if one else "a photo of {}"),
            first=round((steps.resize - steps.crop) / 2),
            open_clip=OPEN_CLIP if OPEN_CLIP in info.measured and classes else "",
            timm=TIMM if TIMM in info.measured else "",
            torchvision=_torchvision(info),
            openvino=next((ONNX[name] for name in info.precisions), ""),
            tflite=TFLITE_FILE if TFLITE_FILE in info.files else "",
            other_crop=OPEN_CLIP in info.measured and steps.crop != steps.resize,
        )
        return snippets if any(getattr(snippets, name) for name in EXAMPLES) else None


EXAMPLES = (OPEN_CLIP, TIMM, TORCHVISION, "openvino", "tflite")


def _torchvision(info: ModelInfo) -> str:
    """Return the arguments of ``get_model`` for a student of torchvision whose weights are there."""
    whole = "safetensors" in info.measured and WEIGHTS in info.files and info.outputs == info.embed_dim
    if not whole or info.head != LINEAR or own_code_in(info.arch) is not None:
        return ""
    library, name = resolve(info.arch)
    if library != TORCHVISION:
        return ""
    arguments: dict[str, Any] = {
        "weights": None,
        "num_classes": info.embed_dim,
        **torchvision_arguments(name, info.image_size),
        **{key: parsed_value(value) for key, _, value in (one.partition("=") for one in info.kwargs)},
    }
    return ", ".join([repr(name), *(f"{key}={value!r}" for key, value in arguments.items())])
