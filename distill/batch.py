"""What crosses from data to the loop: B images with their cached teacher targets."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Self

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """B images with their cached teacher targets. Row i of every tensor is one image.

    ``image_B3RR`` is uint8, squashed and not yet augmented; ``label_B`` int64; ``teacher_BD`` and
    ``caption_BD`` raw embeddings, float32; ``nearest_BK`` int32 class labels and ``similarity_BK`` their
    cosines. ``keys`` name the images in errors.
    """

    keys: tuple[str, ...]
    image_B3RR: Tensor
    label_B: Tensor
    teacher_BD: Tensor
    caption_BD: Tensor | None = None
    nearest_BK: Tensor | None = None
    similarity_BK: Tensor | None = None

    def __post_init__(self) -> None:
        sizes = {name: len(value) for name, value in self._tensors().items()} | {"keys": len(self.keys)}
        assert len(set(sizes.values())) == 1, f"rows do not line up: {sizes}"

    @property
    def neighbours(self) -> tuple[Tensor, Tensor] | None:
        """The teacher's nearest texts as :func:`distill.objective.distillation_objective` takes them."""
        if self.nearest_BK is None or self.similarity_BK is None:
            return None
        return self.nearest_BK, self.similarity_BK

    def to(self, device: torch.device) -> Self:
        """Copy every tensor to ``device``."""
        moved = {name: value.to(device, non_blocking=True) for name, value in self._tensors().items()}
        return replace(self, **moved)  # type: ignore[arg-type]

    def _tensors(self) -> dict[str, Tensor]:
        found = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "keys"}
        return {name: value for name, value in found.items() if value is not None}
