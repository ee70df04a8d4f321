"""Optimisers, and the learning rate as a pure function of the epoch, so that resuming changes nothing."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.optim import Optimizer

from distill.config import OptimConfig

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


def learning_rate(config: OptimConfig, *, epoch: int, epochs: int) -> float:
    """Return the learning rate of an epoch counted from 0.

    ``onecycle`` is torch's OneCycleLR with ``total_steps=epochs``, stepped once an epoch.
    """
    base_lr, schedule = config.lr, config.schedule
    if schedule == "step":
        return base_lr * config.gamma ** sum(epoch >= milestone for milestone in config.milestones)
    if schedule == "onecycle":
        low, end = base_lr / START_DIVISOR, base_lr / START_DIVISOR / END_DIVISOR
        return _one_cycle(epoch, epochs, low, base_lr, end)
    if schedule == "cosine":
        return base_lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
    return base_lr


def _one_cycle(epoch: int, epochs: int, start: float, peak: float, end: float) -> float:
    top, last = WARM_SHARE * epochs - 1, epochs - 1
    if epoch <= top:
        return _cosine_between(start, peak, epoch / top if top else 1.0)
    return _cosine_between(peak, end, (epoch - top) / (last - top))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def lost_schedule(config: OptimConfig, epochs: int) -> str:
    """Return one line about a schedule that cannot do its work in so few epochs; "" where it can."""
    rates = [learning_rate(config, epoch=epoch, epochs=epochs) for epoch in range(epochs)]
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
    lr = learning_rate(config, epoch=epoch, epochs=epochs)
    momentum = 0.9 if config.name == "adamw" else config.momentum  # AdamW: the first beta
    if config.schedule == "onecycle":  # OneCycleLR cycles it too
        momentum = _one_cycle(epoch, epochs, MOMENTUM_HIGH, MOMENTUM_LOW, MOMENTUM_HIGH)
    for group in optimizer.param_groups:
        group["lr"] = lr
        if "betas" in group:
            group["betas"] = (momentum, group["betas"][1])
        else:
            group["momentum"] = momentum
    return lr
