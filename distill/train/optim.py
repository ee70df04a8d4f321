"""Optimisers: torch's own SGD and AdamW, any other through timm; what decays, and at which rate, by group."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from cache.runtime.errors import UserError, nearest_names, reason_of
from distill.config import OptimConfig
from distill.config_fields import require
from distill.student.parts import trunk_parameters

OF_TORCH = ("sgd", "adamw")
# They need second derivatives, a compiler and a random state of their own, or CUDA packages of others.
_NOT_HERE = ("adahessian", "kron", "bnb", "fused")


@cache
def optimizer_names() -> tuple[str, ...]:
    """Return the names of the optimisers that a run can have."""
    import cache.runtime.torchvision_compat  # noqa: F401  # before timm, which imports it  # isort: skip
    from timm.optim import list_optimizers  # here, because it takes a second

    theirs = [name for name in map(str, list_optimizers()) if not name.startswith(_NOT_HERE)]
    return (*OF_TORCH, *(name for name in theirs if name not in OF_TORCH))


def check_optimizer(config: OptimConfig) -> None:
    """Make sure that there is such an optimiser; UserError with near names else."""
    if config.name in OF_TORCH:
        return
    names = optimizer_names()
    require(
        config.name in names,
        f"optim.name is {config.name!r}",
        f"{nearest_names(config.name, names)}give sgd, adamw or one of timm's, such as lamb or lion.",
    )


def build_optimizer(student: nn.Module, config: OptimConfig, *more: nn.Module) -> Optimizer:
    """Return the optimiser of a student's parameters and those of ``more`` modules.

    UserError if there is none of its name, or timm knows no layers of a student whose layers have rates of
    their own.
    """
    check_optimizer(config)
    groups = parameter_groups(student, config, *more)
    shared: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    fused = all(p.is_cuda for group in groups for p in group["params"])
    if config.name == "sgd":
        return torch.optim.SGD(groups, momentum=config.momentum, fused=fused, **shared)
    if config.name == "adamw":
        return torch.optim.AdamW(groups, fused=fused, **shared)
    from timm.optim import create_optimizer_v2

    try:
        return create_optimizer_v2(groups, opt=config.name, momentum=config.momentum, **shared)
    except (ValueError, TypeError, RuntimeError, ImportError, AssertionError) as error:
        raise UserError(
            f"the optimiser {config.name} cannot be made ({reason_of(error)})",
            fix="choose another optim.name.",
        ) from error


def parameter_groups(student: nn.Module, config: OptimConfig, *more: nn.Module) -> list[dict[str, Any]]:
    """Return the trained parameters by what they have in common.

    ``lr_scale`` is how many times ``lr`` their rate is. Norms, biases and what timm's models name otherwise
    have no weight decay, unless ``decay_all``.
    """
    scales = _scales(student, config)
    skipped = _never_decayed(student)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for module in (student, *more):
        for name, parameter in module.named_parameters():
            if parameter.requires_grad:
                plain = parameter.ndim <= 1 or name.endswith(".bias") or id(parameter) in skipped
                decays = config.decay_all or not plain
                groups.setdefault((scales.get(id(parameter), 1.0), decays), []).append(parameter)
    return [
        {"params": own, "lr_scale": scale, "weight_decay": config.weight_decay if decays else 0.0}
        for (scale, decays), own in groups.items()
    ]


def _never_decayed(student: nn.Module) -> set[int]:
    """Return the ids of the parameters that timm's models say must not decay, such as position embeddings."""
    skipped: set[int] = set()
    for part in student.modules():
        if hasattr(part, "no_weight_decay"):
            names = part.no_weight_decay()  # type: ignore[operator]
            skipped |= {id(own) for name, own in part.named_parameters() if name in names}
    return skipped


def _scales(student: nn.Module, config: OptimConfig) -> dict[int, float]:
    """Return how many times ``lr`` a parameter's rate is, by its id; those that are left out have 1."""
    scales = _scales_of_layers(student, config.layer_decay) if config.layer_decay < 1 else {}
    if config.trunk_scale != 1:
        for parameter in trunk_parameters(student):
            scales[id(parameter)] = scales.get(id(parameter), 1.0) * config.trunk_scale
    return scales


def _scales_of_layers(student: nn.Module, decay: float) -> dict[int, float]:
    """Return 1 for the last layer, ``decay`` for the one below, and so on, as timm counts them (BEiT)."""
    trunk = next((part for part in student.modules() if hasattr(part, "group_matcher")), None)
    scales: dict[int, float] = {}
    if trunk is not None:
        from timm.optim import param_groups_layer_decay

        groups = param_groups_layer_decay(trunk, layer_decay=decay)
        scales = {id(own): group["lr_scale"] for group in groups for own in group["params"]}
    require(
        len(set(scales.values())) > 1,
        f"optim.layer_decay is {decay}, but timm knows no layers of this student",
        "choose one of timm's (student.arch=timm:NAME), or set optim.layer_decay=1, and optim.trunk_scale.",
    )
    return scales
