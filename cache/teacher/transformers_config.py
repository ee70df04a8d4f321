"""What the config.json of a transformers CLIP or SigLIP from elsewhere may ask for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError, reason_of
from cache.runtime.hub_models import import_transformers, named_values, wants_code
from cache.teacher.model_files import json_of

CONFIG = "config.json"
TYPES = ("clip", "siglip")
# All that decides what a tower computes; nothing else that a config says is handed on.
_TOWER = (
    *("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act"),
    "layer_norm_eps",
)
_TEXT = (*_TOWER, "vocab_size", "max_position_embeddings")
_VISION = (*_TOWER, "image_size", "patch_size", "num_channels")
FIELDS: dict[str, dict[str, tuple[str, ...]]] = {
    "clip": {"text": (*_TEXT, "eos_token_id"), "vision": _VISION},
    "siglip": {"text": (*_TEXT, "projection_size"), "vision": (*_VISION, "vision_use_head")},
}
# What of a config.json says how the network is built.
_TAKEN = (
    *("model_type", "text_config", "vision_config", "text_config_dict", "vision_config_dict"),
    "projection_dim",
)
# The largest that there is, and much more.
MOST = {
    **{"hidden_size": 2**14, "intermediate_size": 2**17, "num_hidden_layers": 1024},
    **{"num_attention_heads": 2**14, "vocab_size": 2**21, "max_position_embeddings": 2**12},
    **{"image_size": 4096, "patch_size": 4096, "projection_size": 2**14, "projection_dim": 2**14},
}
WRITTEN = "give a folder or repository that transformers' save_pretrained wrote."
FIXED = "give a CLIP or SigLIP of one image size, such as hf-hub:google/siglip2-base-patch16-224."


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """The numbers that a model is built by: of its two towers, and of CLIP's projection (None of SigLIP).

    ``text`` and ``vision`` hold what :data:`FIELDS` names, and ``tokenizer_class`` what the config calls the
    tokenizer, "" where it says nothing.
    """

    model_type: str
    text: dict[str, Any]
    vision: dict[str, Any]
    projection_dim: int | None
    tokenizer_class: str = ""

    def as_config(self) -> dict[str, Any]:
        """Return a ``config.json`` that :func:`architecture_of` reads it from again."""
        projection = {} if self.projection_dim is None else {"projection_dim": self.projection_dim}
        tokenizer = {"tokenizer_class": self.tokenizer_class} if self.tokenizer_class else {}
        towers = {"text_config": self.text, "vision_config": self.vision}
        return {"model_type": self.model_type, **towers, **projection, **tokenizer}

    def config(self) -> Any:
        """Return transformers' own config of it."""
        transformers = import_transformers()
        none = {"bos_token_id": None, "pad_token_id": None}
        made = {"clip": transformers.CLIPConfig, "siglip": transformers.SiglipConfig}[self.model_type]
        projection = {} if self.projection_dim is None else {"projection_dim": self.projection_dim}
        return made(
            text_config={"eos_token_id": None, **none, **self.text, **projection},
            vision_config={**self.vision, **projection},
            **projection,
        )


def read_json(file: Path) -> dict[str, Any]:
    """Return what a file of a model says; UserError where it is no table, or asks for code of its own."""
    value = json_of(file)
    for key, found in named_values(value):
        if wants_code(key, found) or (key == "auto_map" and found):
            raise UserError(
                f"{file} asks for {key}={found!r:.60}, which is not taken: code that comes with a model is "
                "never run",
                fix="give a model that transformers itself knows, in plain numbers.",
            )
    return value


def read_architecture(file: Path) -> Architecture:
    """Return what a ``config.json`` says of a CLIP or SigLIP.

    Raises
    ------
    UserError
        If it is of another model, or asks for code or for more than any model has.
    """
    return architecture_of(read_json(file), where=str(file))


def architecture_of(given: dict[str, Any], *, where: str) -> Architecture:
    """Return the architecture that a config means; raises as :func:`read_architecture`."""
    kind = given.get("model_type")
    if kind == "siglip2":
        raise UserError(
            f"{where} is of a NaFlex model, which takes pictures in their own shapes, not images of one size",
            fix=FIXED,
        )
    if kind not in TYPES:
        raise UserError(
            f"{where} is of a model of the type {kind!r:.40}; a teacher of transformers is a CLIP or SigLIP",
            fix=FIXED,
        )
    transformers = import_transformers()
    classes: dict[str, Any] = {"clip": transformers.CLIPConfig, "siglip": transformers.SiglipConfig}
    try:
        known = classes[kind].from_dict({key: value for key, value in given.items() if key in _TAKEN})
    except Exception as error:  # of its own checks; each of its versions has other ones
        raise UserError(
            f"{where} is no config of a {kind} model ({reason_of(error)})", fix=WRITTEN
        ) from error
    fields = FIELDS[kind]
    made = Architecture(
        model_type=kind,
        text={name: getattr(known.text_config, name) for name in fields["text"]},
        vision={name: getattr(known.vision_config, name) for name in fields["vision"]},
        projection_dim=known.projection_dim if kind == "clip" else None,
        tokenizer_class=str(given.get("tokenizer_class") or ""),
    )
    _check(made, where)
    return made


def check_size(towers: Sequence[dict[str, Any]], weights_bytes: int, *, weights: str, where: str) -> None:
    """Raise a UserError where towers of a config have more numbers than their weights have bytes."""
    least = sum(map(_least_numbers, towers))
    if least > weights_bytes:
        raise UserError(
            f"the weights {weights}, {weights_bytes:,} bytes, do not fit {where}, which asks for {least:,} "
            "numbers",
            fix="give the weights that belong to this config.",
        )


def _check(made: Architecture, where: str) -> None:
    """Raise a UserError unless all numbers of an architecture are such as models have."""
    for name, value in _values(made):
        if name in MOST and (type(value) is not int or not 0 < value <= MOST[name]):
            raise UserError(f"{where} asks for a {name} of {value!r:.40}", fix=WRITTEN)
    odd = {
        "hidden_act": any(not isinstance(tower["hidden_act"], str) for tower in (made.text, made.vision)),
        "num_channels": made.vision["num_channels"] != 3,
        "vision_use_head": made.vision.get("vision_use_head", True) is not True,
        "eos_token_id": made.model_type == "clip" and type(made.text["eos_token_id"]) is not int,
    }
    for name in (name for name, is_odd in odd.items() if is_odd):
        value = next(value for key, value in _values(made) if key == name)
        raise UserError(f"{where} has a {name} of {value!r:.40}, which no such teacher has", fix=WRITTEN)


def _values(made: Architecture) -> Iterator[tuple[str, Any]]:
    yield from made.vision.items()
    yield from made.text.items()
    if made.projection_dim is not None or made.model_type == "clip":
        yield "projection_dim", made.projection_dim


def _least_numbers(tower: dict[str, Any]) -> int:
    width, inner = tower["hidden_size"], tower["intermediate_size"]
    blocks = tower["num_hidden_layers"] * (4 * width**2 + 2 * width * inner)
    patches = (tower.get("image_size", 0) // tower.get("patch_size", 1)) ** 2
    looked_up = tower.get("vocab_size", 0) + tower.get("max_position_embeddings", 0) + patches
    return int(blocks + looked_up * width)
