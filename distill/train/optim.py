"""Optimisers, and the learning rate as a pure function of the epoch, so that resuming changes nothing."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn
from torch.optim import Optimizer

from cache.runtime.errors import UserError, nearest_names
from distill.config import OptimConfig

SCHEDULES = ("step", "onecycle", "cosine", "constant")

# torch.optim.lr_scheduler.OneCycleLR's defaults, which the original code uses.
WARM_SHARE, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4
MOMENTUM_LOW, MOMENTUM_HIGH = 0.85, 0.95

# Epochs at less than a thousandth of optim.lr move nothing: onecycle's last is one. A quarter is many.
USELESS, MANY = 1e-3, 0.25


def build_optimizer(model: nn.Module, config: OptimConfig, *more: nn.Module) -> Optimizer:
    """Return SGD with momentum or AdamW over all parameters; weight decay on all, as the original code."""
    parameters = [p for module in (model, *more) for p in module.parameters() if p.requires_grad]
    fused = all(p.is_cuda for p in parameters)
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)


def learning_rate(
    epoch: int,
    *,
    schedule: str,
    base_lr: float,
    epochs: int,
    milestones: Sequence[int] = (30, 60),
    gamma: float = 0.1,
) -> float:
    """Return the learning rate of an epoch counted from 0.

    ``onecycle`` is torch's OneCycleLR with ``total_steps=epochs``, stepped once an epoch.

    Raises
    ------
    UserError
        If no schedule has the name.
    """
    if schedule == "step":
        return base_lr * gamma ** sum(epoch >= milestone for milestone in milestones)
    if schedule == "onecycle":
        low, end = base_lr / START_DIVISOR, base_lr / START_DIVISOR / END_DIVISOR
        return _one_cycle(epoch, epochs, low, base_lr, end)
    if schedule == "cosine":
        return base_lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
    if schedule == "constant":
        return base_lr
    raise UserError(
        f"no schedule is called {schedule!r}",
        fix=f"{nearest_names(schedule, SCHEDULES)}choose from {', '.join(SCHEDULES)}.",
    )


def momentum(epoch: int, *, schedule: str, base_momentum: float, epochs: int) -> float:
    """Return the momentum (AdamW: the first beta) of an epoch; OneCycleLR cycles it too."""
    if schedule != "onecycle":
        return base_momentum
    return _one_cycle(epoch, epochs, MOMENTUM_HIGH, MOMENTUM_LOW, MOMENTUM_HIGH)


def _one_cycle(epoch: int, epochs: int, start: float, peak: float, end: float) -> float:
    top, last = WARM_SHARE * epochs - 1, epochs - 1
    if epoch <= top:
        return _cosine_between(start, peak, epoch / top if top else 1.0)
    return _cosine_between(peak, end, (epoch - top) / (last - top))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def rate_of(config: OptimConfig, *, epoch: int, epochs: int) -> float:
    """Return the learning rate that a config has in an epoch; see :func:`learning_rate`."""
    return learning_rate(
        epoch,
        schedule=config.schedule,
        base_lr=config.lr,
        epochs=epochs,
        milestones=config.milestones,
        gamma=config.gamma,
    )


def lost_schedule(config: OptimConfig, epochs: int) -> str:
    """Return one line about a schedule that cannot do its work in so few epochs; "" where it can."""
    rates = [rate_of(config, epoch=epoch, epochs=epochs) for epoch in range(epochs)]
    if config.schedule == "step" and 1 < epochs <= min(config.milestones, default=0):
        # At the same shares of the run as 30 and 60 are of the paper's 90 epochs.
        instead = ",".join(str(place) for place in sorted({max(1, epochs // 3), max(1, 2 * epochs // 3)}))
        return (
            f"the step schedule has its milestones at {' and '.join(map(str, config.milestones))}, after the "
            f"run's {epochs} epochs: the rate never falls; set optim.milestones=[{instead}]"
        )
    lost = sum(rate < USELESS * config.lr for rate in rates)
    if lost < MANY * epochs:
        return ""
    whole = "the run's only epoch" if epochs == 1 else f"{lost} of the run's {epochs} epochs"
    return (
        f"the {config.schedule} schedule gives {whole} a rate of {rates[-1]:.0e} or so, which trains "
        "nothing: give more --epochs, or set optim.schedule=constant"
    )


def set_epoch(optimizer: Optimizer, config: OptimConfig, *, epoch: int, epochs: int) -> float:
    """Set an optimiser's learning rate and momentum for an epoch; return the learning rate."""
    lr = rate_of(config, epoch=epoch, epochs=epochs)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "betas" in group:
            beta = momentum(epoch, schedule=config.schedule, base_momentum=0.9, epochs=epochs)
            group["betas"] = (beta, group["betas"][1])
        else:
            group["momentum"] = momentum(
                epoch, schedule=config.schedule, base_momentum=config.momentum, epochs=epochs
            )
    return lr
