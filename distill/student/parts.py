"""A student's two parts: the head, which gives the embedding, and the trunk below it."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from cache.runtime.errors import UserError


def head_of(student: nn.Module) -> nn.Module:
    """Return what gives a student's embedding: what it says itself, as timm's do, else its last layer.

    UserError if it has neither a linear layer nor a convolution.
    """
    own = student.get_classifier() if hasattr(student, "get_classifier") else None  # type: ignore[operator]
    if isinstance(own, tuple | list):  # of timm's distilled transformers
        own = nn.ModuleList(own)
    if isinstance(own, nn.Module) and any(True for _ in own.parameters()):
        return own
    layers = [part for part in student.modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    if not layers:
        raise UserError(
            f"the student {type(student).__name__} has no layer that could be its head",
            fix="give it a linear layer, or a get_classifier() that returns what gives the embedding.",
        )
    return layers[-1]


def head_parameters(student: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a student's head."""
    return list(head_of(student).parameters())


def trunk_parameters(student: nn.Module) -> list[nn.Parameter]:
    """Return the parameters of a student that are not its head's."""
    of_head = {id(parameter) for parameter in head_parameters(student)}
    return [parameter for parameter in student.parameters() if id(parameter) not in of_head]


def trunk_batch_norms(student: nn.Module) -> list[_BatchNorm]:
    """Return the batch norms of a student that are not its head's, of whatever kind."""
    of_head = set(head_of(student).modules())
    return [part for part in student.modules() if isinstance(part, _BatchNorm) and part not in of_head]
