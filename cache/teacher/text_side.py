"""What reads a teacher's texts: a small protocol for adapters, and the one place that cuts padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from cache.runtime.progress import Progress

# Texts that are embedded at once.
BATCH = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What a cache keeps of a text tower: its config, its weights on the CPU, its tokenizer's ``files``.

    Of open_clip's own tokenizer there are none.
    """

    config: dict[str, Any]
    weights: dict[str, Tensor]
    files: tuple[Path, ...] = ()


class TextSide(Protocol):
    """Texts of a teacher -> embeddings, by way of tokens."""

    @property
    def context_length(self) -> int:
        """How many tokens of a text it takes at most."""

    def tokens(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Return the tokens [T, L] int64 of texts, and how many of each count, int64 [T], both on the CPU.

        What of a row follows its count changes nothing of its embedding and may be cut; where padding counts,
        as in a tower that looks both ways, that is L for all.
        """

    def embed(self, tokens_TL: Tensor) -> Tensor:
        """Return raw embeddings [T, D], where they were computed, of tokens cut to any length that counts."""

    def is_too_long(self, text: str) -> bool:
        """Say whether a text is cut to fit the context."""

    def check_kept(self) -> None:
        """Make sure that a cache can keep it; UserError else."""

    def kept(self) -> Kept:
        """Return what a cache keeps; UserError as ``check_kept``."""


class KeptTexts(TextSide, Protocol):
    """A text tower that a cache keeps: prompts may be learnt in it, in the place of token embeddings."""

    @property
    def network(self) -> nn.Module:
        """The tower, frozen, in float32."""

    @property
    def token_embedding(self) -> nn.Module:
        """The layer of it that gives tokens [T, L] their vectors [T, L, W]."""

    @property
    def width(self) -> int:
        """W."""

    @property
    def lead(self) -> int:
        """How many tokens of every text stand before its own: learnt vectors come after them."""

    def tokens(self, texts: Sequence[str], *, room: int = 0) -> tuple[Tensor, Tensor]:
        """Return tokens and counts as a text side does, with ``room`` more that stand for nothing."""


def embedded_texts(
    side: TextSide, texts: Sequence[str], *, batch_size: int = BATCH, progress: Progress | None = None
) -> tuple[Tensor, int]:
    """Return raw embeddings [T, D] float32 on the CPU, in the order given, and how many texts were cut.

    Texts are embedded in order of length, so that little of a batch is padding and the batches are the same
    whatever order they come in. At least one text. ``progress``, which was started, is told of each batch.
    """
    tokens, counts = side.tokens(texts)
    length = counts.tolist()
    order = sorted(range(len(texts)), key=lambda i: (length[i], texts[i]))
    batches = []
    for start in range(0, len(order), batch_size):
        chosen = torch.tensor(order[start : start + batch_size])
        batches.append(side.embed(without_padding(tokens[chosen], counts[chosen])).float().cpu())
        if progress is not None:
            progress.advance(len(chosen))
    rows = torch.cat(batches)
    return rows[torch.tensor(order).argsort()], sum(map(side.is_too_long, texts))


def without_padding(tokens_TL: Tensor, counts_T: Tensor) -> Tensor:
    """Return tokens cut to the longest of them, as :meth:`TextSide.tokens` counts."""
    return tokens_TL[:, : int(counts_T.max())]


def token_ids(side: TextSide, texts: Sequence[str]) -> list[tuple[int, ...]]:
    """Return what is read of each text: its tokens, cut to the context."""
    return [tuple(row) for row in side.tokens(texts)[0].tolist()] if texts else []
