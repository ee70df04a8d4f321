"""The text side of open_clip's models: of a whole one, and of the tower alone that a cache keeps.

In a causal tower what follows the end token changes nothing, so the padding need not be computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn

# Before open_clip, which imports torchvision itself.
from cache.runtime.torchvision_compat import torchvision  # noqa: F401

# isort: split
from open_clip.model import _build_text_tower

from cache.runtime.errors import UserError
from cache.teacher.config_checks import checked_config, checked_tokenizer_options
from cache.teacher.tokenizers import own_tokenizer


@dataclass(frozen=True, kw_only=True)
class OpenClipTexts:
    """A text tower of open_clip's and its tokenizer, whose digest is ``digest``.

    ``network`` is the tower, or the whole model where that has no tower of its own; ``encode`` embeds tokens
    by it. ``weights`` begin with ``own`` in the model's state.
    """

    network: nn.Module
    tokenizer: Any
    config: dict[str, Any]
    digest: str
    encode: Callable[[Tensor], Tensor] = field(repr=False)
    model: nn.Module

    @classmethod
    def of_model(cls, model: nn.Module, tokenizer: Any, *, config: dict[str, Any], digest: str) -> Self:
        """Return the text side of a whole model of a checked ``config``."""
        tower: nn.Module = getattr(model, "text", model)  # type: ignore[assignment]
        encode: Any = model.encode_text
        return cls(
            network=tower, tokenizer=tokenizer, config=config, digest=digest, encode=encode, model=model
        )

    @classmethod
    def of_kept(cls, config: dict[str, Any], weights: dict[str, Tensor]) -> Self:
        """Return a kept tower, frozen in float32; no image tower is built.

        Raises
        ------
        ValueError, RuntimeError
            If config and weights do not fit each other.
        UserError
            If the config asks for another tower than :meth:`kept` gives, or for too much, or the tokenizer
            here is not the one that the tower learnt with.
        """
        where, held = "its config", sum(value.nbytes for value in weights.values())
        checked = checked_config({**config, "vision_cfg": {"layers": 0}}, where=where, weights_bytes=held)
        text = checked["text_cfg"]
        if _of_transformers(text):
            raise ValueError("it is not open_clip's transformer with CLIP's tokenizer")
        network: Any = _build_text_tower(config["embed_dim"], text, quick_gelu=config["quick_gelu"])
        network.load_state_dict({key: value.float() for key, value in weights.items()})
        network.output_tokens = False
        options = checked_tokenizer_options(text, where=where)
        tokenizer, digest = own_tokenizer(text.get("context_length", 77), options)
        if config["tokenizer"] != digest:
            raise UserError(
                "the tokenizer of the open_clip that is installed is another than the text tower was kept "
                "with",
                fix="install the open_clip_torch that 'distill cache info --json' names.",
            )
        network.eval().requires_grad_(False)
        return cls(
            network=network,
            tokenizer=tokenizer,
            config=config,
            digest=digest,
            encode=network,
            model=network,
        )

    @property
    def context_length(self) -> int:
        """How many tokens of a text it takes at most."""
        return int(getattr(self.tokenizer, "context_length", 77))

    @property
    def token_embedding(self) -> nn.Module:
        """The layer that gives tokens their vectors."""
        return self.network.token_embedding  # type: ignore[return-value]

    @property
    def width(self) -> int:
        """The size of such a vector."""
        return int(self.network.token_embedding.weight.shape[1])  # type: ignore[union-attr, index, arg-type]

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the tokens [T, L] of texts, and how many of each count: to its end, or all."""
        tokens: Tensor = self.tokenizer(list(texts))
        return tokens, _counts(self.network, tokens)

    def embed(self, tokens_TL: Tensor) -> Tensor:
        """Return raw embeddings [T, D] of tokens cut to any length that counts."""
        device = next(self.network.parameters()).device
        with _context_of(self.network, tokens_TL.shape[1]):
            return self.encode(tokens_TL.to(device))

    def is_too_long(self, text: str) -> bool:
        """Say whether the tokenizer cuts a text to fit its context."""
        if hasattr(self.tokenizer, "sot_token_id"):
            return len(self.tokenizer.encode(text)) + 2 > self.context_length
        tokens = self.tokenizer.tokenizer(self.tokenizer.clean_fn(text))["input_ids"]
        return len(tokens) > self.context_length

    def check_kept(self) -> None:
        """Make sure that it is open_clip's own transformer with CLIP's tokenizer; UserError else."""
        if _of_transformers(self.config["text_cfg"]) or not hasattr(self.tokenizer, "sot_token_id"):
            raise UserError(
                "the teacher's text tower is not open_clip's transformer with CLIP's tokenizer",
                fix="leave --keep-text-tower out, or choose a CLIP teacher.",
            )

    def kept(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """Return what :meth:`of_kept` makes a text tower of; UserError as :meth:`check_kept`."""
        self.check_kept()
        own = "text." if self.network is not self.model else ""
        weights = {
            key.removeprefix(own): value.detach().cpu().contiguous()
            for key, value in self.model.state_dict().items()
            if key.startswith(own) and not key.startswith(("visual.", "logit_", "text_decoder."))
        }
        config = self.config
        return {
            "embed_dim": config["embed_dim"],
            "quick_gelu": bool(config.get("quick_gelu", False)),
            "text_cfg": dict(config["text_cfg"]),
            "tokenizer": self.digest,
        }, weights


def _of_transformers(text: dict[str, Any]) -> bool:
    """Say whether a text tower or its tokenizer is one of transformers'."""
    return bool(text.get("hf_model_name") or text.get("hf_tokenizer_name"))


def _counts(tower: Any, tokens_TL: Tensor) -> Tensor:
    """Return how many tokens of each text count, int64 [T]: to its end, or L where no padding can be cut."""
    whole = torch.full((len(tokens_TL),), tokens_TL.shape[1])
    if not _is_causal(tower):
        return whole
    pool = getattr(tower, "text_pool_type", getattr(tower, "pool_type", ""))
    if pool == "argmax":  # CLIP's end token is the highest of all
        return tokens_TL.argmax(dim=1) + 1
    if pool == "eos":
        end = tokens_TL == getattr(tower, "text_eos_id", getattr(tower, "eos_id", -1))
        return torch.where(end.any(dim=1), end.int().argmax(dim=1) + 1, whole)
    return whole


@contextmanager
def _context_of(tower: Any, length: int) -> Iterator[None]:
    """Let a tower take ``length`` tokens, as counted by :func:`_counts`, instead of all."""
    if not _is_causal(tower) or length >= len(tower.positional_embedding):
        yield
        return
    mask, positions = tower.attn_mask, tower.positional_embedding
    tower.attn_mask = mask[:length, :length]
    tower.positional_embedding = nn.Parameter(positions[:length], requires_grad=False)
    try:
        yield
    finally:
        tower.attn_mask, tower.positional_embedding = mask, positions


def _is_causal(tower: Any) -> bool:
    """Say whether a token sees only those before it; a class token stands at the end, behind the padding."""
    return getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
