"""Texts shorter than the context: in a causal text tower what follows the end token changes nothing.

So the padding need not be computed: batches of texts of like length are cut to the longest of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def lengths(model: nn.Module, tokens_TL: Tensor) -> Tensor:
    """Return how many tokens of each text count, int64 [T]: to its end, or L where no padding can be cut."""
    tower = _tower(model)
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
def context_of(model: nn.Module, length: int) -> Iterator[None]:
    """Let the text tower take ``length`` tokens, as counted by :func:`lengths`, instead of all."""
    tower = _tower(model)
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


def _tower(model: nn.Module) -> Any:
    return getattr(model, "text", model)


def _is_causal(tower: Any) -> bool:
    """Say whether a token sees only those before it; a class token stands at the end, behind the padding."""
    return getattr(tower, "attn_mask", None) is not None and getattr(tower, "cls_emb", None) is None
