"""Embeddings -> logits: by class texts, or a closed set's own outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor


class Classifier(Protocol):
    """Turns a model's outputs [B, D] into logits [B, C] over one split's classes."""

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return the logits."""
        ...


@dataclass(frozen=True, kw_only=True)
class TextClassifier:
    """Cosine with every class text [C, D], divided by temperature: open to any class that has a text."""

    text: Tensor
    temperature: float

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return logits [B, C] float32."""
        unit_text = F.normalize(self.text.to(outputs.device).float(), dim=1)
        return F.normalize(outputs.float(), dim=1) @ unit_text.T / self.temperature


@dataclass(frozen=True, kw_only=True)
class ClosedSetClassifier:
    """A plain classifier's outputs, restricted to the columns of one split's classes."""

    columns: tuple[int, ...]

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return logits [B, C] float32."""
        return outputs.float()[:, list(self.columns)]


def closed_set_columns(all_classes: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the output column of each of a split's classes."""
    position = {name: i for i, name in enumerate(all_classes)}
    return tuple(position[name] for name in class_names)
