"""The learning rate as a pure function of the share of the run that is done: resuming changes nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch.optim import Optimizer

from distill.config import OptimConfig

# torch.optim.lr_scheduler.OneCycleLR's defaults, which the original code uses.
WARM_SHARE, START_DIVISOR, END_DIVISOR = 0.3, 25.0, 1e4
MOMENTUM_LOW, MOMENTUM_HIGH = 0.85, 0.95

# Epochs at less than a thousandth of optim.lr move nothing: onecycle's last is one. A quarter is many.
USELESS, MANY = 1e-3, 0.25


@dataclass(frozen=True, kw_only=True, slots=True)
class Moment:
    """A step of a run: which of the ``steps`` of its epoch, and which of the ``epochs``, counted from 0."""

    epoch: int
    epochs: int
    step: int = 0
    steps: int = 1

    @property
    def share(self) -> float:
        """The share of the run that is done in the middle of the step."""
        return (self.epoch + (self.step + 0.5) / self.steps) / self.epochs


def learning_rate(config: OptimConfig, moment: Moment) -> float:
    """Return the learning rate of a step.

    By step the middle of the step counts, so that a run of one epoch anneals as well; by epoch what was done
    when the epoch began, as in the original code. A warm-up goes from 0 to ``lr`` in a straight line, by
    step; ``cosine`` falls over what is left after it.
    """
    share = moment.share if config.schedule_by == "step" else moment.epoch / moment.epochs
    rate = config.lr
    if config.schedule == "step":
        rate *= config.gamma ** sum(share >= milestone for milestone in config.milestones)
    elif config.schedule == "onecycle":
        low, end = rate / START_DIVISOR, rate / START_DIVISOR / END_DIVISOR
        rate = _one_cycle(config, moment, low, rate, end)
    elif config.schedule == "cosine":
        left = max(0.0, share - config.warmup) / (1 - config.warmup)
        rate *= (1 + math.cos(math.pi * left)) / 2
    return rate * min(1.0, moment.share / config.warmup) if config.warmup else rate


def cycled_momentum(config: OptimConfig, moment: Moment) -> float | None:
    """Return the momentum (of Adam and its kin the first beta) that ``onecycle`` cycles too; else None."""
    if config.schedule != "onecycle":
        return None
    return _one_cycle(config, moment, MOMENTUM_HIGH, MOMENTUM_LOW, MOMENTUM_HIGH)


def _one_cycle(config: OptimConfig, moment: Moment, start: float, peak: float, end: float) -> float:
    """Return a value of torch's OneCycleLR: over the run's share, or with one step an epoch."""
    at, top, last = moment.share, WARM_SHARE, 1.0
    if config.schedule_by == "epoch":
        at, top, last = moment.epoch, WARM_SHARE * moment.epochs - 1, moment.epochs - 1
    if at <= top:
        return _cosine_between(start, peak, at / top if top else 1.0)
    return _cosine_between(peak, end, (at - top) / (last - top))


def _cosine_between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def lost_schedule(config: OptimConfig, epochs: int) -> str:
    """Return one line about a schedule that cannot do its work, or not in so few epochs; "" where it can."""
    if config.schedule == "step" and not config.milestones:
        return "the step schedule has no optim.milestones, so that its rate never falls"
    if config.schedule_by == "step" or config.schedule == "constant":
        return ""
    rates = [learning_rate(config, Moment(epoch=epoch, epochs=epochs)) for epoch in range(epochs)]
    lost = sum(rate < USELESS * config.lr for rate in rates)
    whole = "the run's only epoch" if epochs == 1 else f"{lost} of the run's {epochs} epochs"
    if lost >= MANY * epochs:
        does = f"gives {whole} a rate of {rates[-1]:.0e} or so, which trains nothing"
    elif epochs == 1:
        does = f"gives {whole} one rate, which never falls"
    else:
        return ""
    return (
        f"the {config.schedule} schedule by epoch {does}: set optim.schedule_by=step, or give more --epochs"
    )


def set_rate(optimizer: Optimizer, config: OptimConfig, moment: Moment) -> None:
    """Set an optimiser's learning rate, and the momentum that is cycled, for a step.

    A group with an ``lr_scale`` has so many times the rate.
    """
    rate, momentum = learning_rate(config, moment), cycled_momentum(config, moment)
    for group in optimizer.param_groups:
        group["lr"] = rate * group.get("lr_scale", 1.0)
        if momentum is None:
            continue
        if "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif "momentum" in group:
            group["momentum"] = momentum
