"""A student's parts: its head, which gives the embedding, and its trunk, which is all the rest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn


def head_of(student: nn.Module) -> nn.Module:
    """Return the layer that gives a student's embedding; of one that reads its stages all that does so.

    Of timm's models it is the classifier, of others the last linear layer or convolution. Of episodes that of
    the backbone.
    """
    if hasattr(student, "trunk") and isinstance(getattr(student, "head", None), nn.Module):
        head: nn.Module = student.head  # type: ignore[assignment]
        return head
    model: Any = getattr(student, "backbone", student) if hasattr(student, "score_bias") else student
    if hasattr(model, "get_classifier"):
        own = model.get_classifier()
        if isinstance(own, nn.Linear | nn.Conv2d):
            return own
    layers = [part for part in model.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if not layers:
        raise ValueError(f"{type(student).__name__} has no linear layer")
    return layers[-1]


def head_parameters(student: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the parameters of a student's head."""
    yield from head_of(student).parameters()


def trunk_parameters(student: nn.Module) -> Iterator[nn.Parameter]:
    """Yield all others."""
    own = {id(value) for value in head_parameters(student)}
    yield from (value for value in student.parameters() if id(value) not in own)
