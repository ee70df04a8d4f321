"""Embeddings -> logits: by class texts, or a closed set's own outputs; and which classes compete."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class AllClasses:
    """Every class of some data: those that are trained on, and those of any split beside them, sorted.

    Where all compete an image of either kind can be taken for one of the other, as when a model is used.
    """

    id_classes: tuple[str, ...]
    ood_classes: tuple[str, ...]

    @classmethod
    def of(cls, classes: Mapping[str, Sequence[str]]) -> AllClasses:
        """Read them off those of each split: ID classes are train's, or where there is none id_test's."""
        seen = next((classes[name] for name in ("train", "id_test") if name in classes), ())
        others = {name for names in classes.values() for name in names} - set(seen)
        return cls(id_classes=tuple(seen), ood_classes=tuple(sorted(others)))

    @classmethod
    def competing(cls, classes: Mapping[str, Sequence[str]]) -> AllClasses | None:
        """Return them where some split lacks one; None where a split's own classes are always all."""
        every = cls.of(classes)
        some_lack = any(0 < len(set(names)) < len(every.names) for names in classes.values())
        return every if some_lack else None

    @property
    def names(self) -> tuple[str, ...]:
        """ID classes, then OOD classes."""
        return self.id_classes + self.ood_classes

    def columns(self, class_names: Sequence[str]) -> list[int]:
        """Return the places of some classes among :attr:`names`."""
        return list(closed_set_columns(self.names, class_names))


Classifier = Callable[[Tensor], Tensor]
"""Turns a model's outputs [B, D] into logits [B, C] over one split's classes, float32."""


@dataclass(frozen=True, kw_only=True)
class TextClassifier:
    """Cosine with every class text [C, D], divided by temperature: open to any class that has a text."""

    text: Tensor
    temperature: float

    def __call__(self, outputs: Tensor) -> Tensor:
        """Return logits [B, C] float32."""
        unit_text = F.normalize(self.text.to(outputs.device).float(), dim=1)
        return F.normalize(outputs.float(), dim=1) @ unit_text.T / self.temperature


def mean_of(parts: Sequence[tuple[slice, Classifier]]) -> Classifier:
    """Return what classifies by the mean of several heads' logits, each of some columns of the outputs.

    It is the geometric mean of their probabilities. Their plain mean is right as often, but depends on which
    other classes compete, and on the temperature; this is the cosine of all heads' unit rows, side by side,
    with all their unit texts.
    """

    def by_all(outputs: Tensor) -> Tensor:
        return torch.stack([classifier(outputs[:, columns]) for columns, classifier in parts]).mean(dim=0)

    return by_all


def closed_set_columns(all_classes: Sequence[str], class_names: Sequence[str]) -> tuple[int, ...]:
    """Return the output column of each of a split's classes."""
    position = {name: i for i, name in enumerate(all_classes)}
    return tuple(position[name] for name in class_names)
