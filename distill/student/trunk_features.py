"""What a student's head takes of images, and gives for it: so a head is tried without its trunk."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import torch
from torch import Tensor, nn

from cache.runtime.errors import UserError
from distill.student.parts import head_of
from distill.student.stages import StagesStudent, Standardise

DIGITS = 16
# Of unit rows, in float32; in float16 and bfloat16 a thousand times as much.
SAME = 1e-3


def trunk_features(student: nn.Module, images: Tensor) -> Tensor:
    """Return the features of images [B, 3, S, S] that a student's head takes, float32 [B, F]."""
    return trunk_features_and_outputs(student, images)[0]


def trunk_features_and_outputs(student: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Return the features of images, and the student's outputs [B, D], both float32."""
    if isinstance(student, StagesStudent):
        features = student.features(images)
        return features, head_outputs(student, features)
    taken: list[Tensor] = []
    hook = head_of(student).register_forward_pre_hook(lambda _, given: taken.append(given[0]))
    try:
        outputs: Tensor = student(images)
    finally:
        hook.remove()
    return taken[-1].float().flatten(1), outputs.float()


def head_outputs(student: nn.Module, features: Tensor) -> Tensor:
    """Return a student's outputs float32 [B, D] of its trunk's features [B, F]."""
    head: Any = head_of(student)
    if isinstance(student, StagesStudent):
        rows = student.embed(features)
    elif isinstance(head, nn.Conv2d):
        rows = nn.functional.linear(features, head.weight.flatten(1), head.bias)
    else:
        rows = head(features)
    outputs: Tensor = rows.float()
    return outputs


@torch.no_grad()
def check_head(student: nn.Module, features: Tensor, outputs: Tensor, *, arch: str) -> None:
    """Make sure that a student's outputs are its last layer's of these features; UserError else.

    Of some models they are not: two classifiers and their mean, or one of every position, pooled afterwards.
    """
    head = head_of(student)
    takes = head.weight[0].numel() if isinstance(head, nn.Linear | nn.Conv2d) else features.shape[1]
    if features.shape[1] == takes:
        apart = (head_outputs(student, features) - outputs).norm(dim=1)
        if bool((apart <= 0.05 * outputs.norm(dim=1) + SAME).all()):
            return
    raise UserError(
        f"the last layer of {arch} does not give its embedding alone, so that its features are no column",
        fix="set student.head=stages, train the whole student, or choose another --arch.",
    )


@torch.no_grad()
def set_linear(student: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Put a linear head's weight [D, F] and bias [D] into a student."""
    head: Any = head_of(student)
    if head.bias is None:
        head.bias = nn.Parameter(torch.zeros_like(head.weight[:, 0]).flatten())
    head.weight.copy_(weight.view_as(head.weight))
    head.bias.copy_(bias)


def standard_of(student: nn.Module) -> Standardise | None:
    """Return what standardises a student's features, where something does."""
    standard = getattr(student, "standard", None)
    return standard if isinstance(standard, Standardise) else None


def trunk_digest(student: nn.Module) -> str:
    """Return 16 hexadecimal digits that name the weights of a student's trunk, its head left out."""
    left_out = {id(value) for value in head_of(student).state_dict(keep_vars=True).values()}
    if (standard := standard_of(student)) is not None:
        left_out |= {id(value) for value in standard.state_dict(keep_vars=True).values()}
    name = sha256(type(student).__name__.encode())
    for key, value in sorted(student.state_dict(keep_vars=True).items()):
        if id(value) not in left_out:
            name.update(f"{key} {value.dtype} {list(value.shape)}".encode())
            name.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return name.hexdigest()[:DIGITS]
