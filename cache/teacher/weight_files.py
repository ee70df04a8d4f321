"""A file of open_clip's weights into its network, and nothing else that the file may hold."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
import open_clip
from open_clip.convert import convert_state_dict, load_big_vision_weights
from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

from cache.teacher.state_files import (
    is_torchscript,
    read_state,
    refuse_torchscript,
    sha256_of_weights,
    state_in,
)

# What OpenAI's archives hold beside their weights.
SIZES = ("input_resolution", "context_length", "vocab_size")


def load_into(network: nn.Module, weights: Path, sha256: str) -> None:
    """Read a file of weights, which has that checksum, into its network.

    Nothing but numbers is read of a file. The one exception are OpenAI's own archives, which are TorchScript:
    their checksums tell them.

    Raises
    ------
    UserError
        If the file may hold code.
    Exception
        Of many kinds, where it is broken or of another network.
    """
    if weights.suffix == ".npz":  # of big_vision: numpy's plain arrays
        load_big_vision_weights(network, str(weights))  # type: ignore[arg-type]
        return
    state = convert_state_dict(network, _state_dict(weights, sha256))  # type: ignore[arg-type]
    model: Any = network
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for name in ("logit_scale", "logit_bias"):  # a number, or one in a row
        own = getattr(model, name, None)
        if name in state and own is not None:
            state[name] = state[name].reshape(own.shape)
    if getattr(model, "logit_bias", None) is not None and "logit_bias" not in state:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    unused = "text.transformer.embeddings.position_ids"
    if unused in state and not hasattr(model, unused):
        del state[unused]
    resize_pos_embed(state, network)
    resize_text_pos_embed(state, network)
    network.load_state_dict(state)


def _state_dict(path: Path, sha256: str) -> dict[str, Tensor]:
    if not is_torchscript(path):
        return read_state(path)
    _check_torchscript(path, sha256)
    state = torch.jit.load(path, map_location="cpu").state_dict()
    return state_in({name: value for name, value in state.items() if name not in SIZES})


def _check_torchscript(path: Path, sha256: str) -> None:
    """Raise a UserError unless a TorchScript archive is one of OpenAI's, by its checksum."""
    # They stand in the addresses that open_clip has of them.
    if sha256 not in {Path(url).parent.name for url in _urls() if "/openaipublic." in url}:
        refuse_torchscript(path, sha256)


def _urls() -> frozenset[str]:
    configs = (open_clip.get_pretrained_cfg(model, tag) for model, tag in open_clip.list_pretrained())
    return frozenset(config["url"] for config in configs if config.get("url"))


def checked_sha256(file: Path) -> str:
    """Return the SHA-256 of weights that hold no program, having compared it with what their name says of it.

    open_clip's releases carry the first digits in their names. UserError as
    :func:`cache.teacher.state_files.sha256_of_weights`.
    """
    is_release = any(Path(url).name == file.name for url in _urls())
    released = re.search(r"-([0-9a-f]{8})\.pth?$", file.name) if is_release else None
    sha256 = sha256_of_weights(file, begins=released[1] if released else "")
    if is_torchscript(file):
        _check_torchscript(file, sha256)
    return sha256
