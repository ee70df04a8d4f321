"""A teacher's text tower alone: taken out of it, and built again without an image tower."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
from open_clip.model import _build_text_tower

from cache.runtime.errors import UserError
from cache.teacher.config_checks import checked_config, checked_tokenizer_options
from cache.teacher.tokenizers import own_tokenizer

if TYPE_CHECKING:
    from cache.teacher.open_clip_model import Teacher


def text_network_of(teacher: Teacher) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Return the config and the weights of a teacher's text tower alone, for :func:`build_text_network`.

    Raises
    ------
    UserError
        If the text tower is not open_clip's own transformer with CLIP's tokenizer.
    """
    config, text = teacher.config, dict(teacher.config["text_cfg"])
    if _of_transformers(text) or not hasattr(teacher.tokenizer, "sot_token_id"):
        raise UserError(
            f"the text tower of {teacher.spec.model} is not open_clip's transformer with CLIP's tokenizer",
            fix="leave --keep-text-tower out, or choose a CLIP teacher.",
        )
    own = "text." if hasattr(teacher.model, "text") else ""
    weights = {
        key.removeprefix(own): value.detach().cpu().contiguous()
        for key, value in teacher.model.state_dict().items()
        if key.startswith(own) and not key.startswith(("visual.", "logit_", "text_decoder."))
    }
    kept = {
        "embed_dim": config["embed_dim"],
        "quick_gelu": bool(config.get("quick_gelu", False)),
        "text_cfg": text,
        "tokenizer": teacher.spec.tokenizer,
    }
    return kept, weights


def _of_transformers(text: dict[str, Any]) -> bool:
    """Say whether a text tower or its tokenizer is one of transformers'."""
    return bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))


def build_text_network(config: dict[str, Any], weights: dict[str, Tensor]) -> tuple[nn.Module, Any]:
    """Return a frozen text tower in float32 and its tokenizer; no image tower is built.

    Raises
    ------
    ValueError, RuntimeError
        If config and weights do not fit each other.
    UserError
        If the config asks for another tower than :func:`text_network_of` gives, or for too much, or the
        tokenizer here is not the one that the tower learnt with.
    """
    where, held = "its config", sum(value.nbytes for value in weights.values())
    checked = checked_config({**config, "vision_cfg": {"layers": 0}}, where=where, weights_bytes=held)
    text = checked["text_cfg"]
    if _of_transformers(text):
        raise ValueError("it is not open_clip's transformer with CLIP's tokenizer")
    network = _build_text_tower(config["embed_dim"], text, quick_gelu=config["quick_gelu"])
    network.load_state_dict({key: value.float() for key, value in weights.items()})
    network.output_tokens = False
    options = checked_tokenizer_options(text, where=where)
    tokenizer, digest = own_tokenizer(text.get("context_length", 77), options)
    if config["tokenizer"] != digest:
        raise UserError(
            "the tokenizer of the open_clip that is installed is another than the text tower was kept with",
            fix="install the open_clip_torch that 'distill cache info --json' names.",
        )
    return network.eval().requires_grad_(False), tokenizer
