"""Optimisers."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim import Optimizer

from distill.config import OptimConfig


def build_optimizer(model: nn.Module, config: OptimConfig, *more: nn.Module) -> Optimizer:
    """Return SGD with momentum or AdamW over all parameters; weight decay on all, as the original code."""
    parameters = [p for module in (model, *more) for p in module.parameters() if p.requires_grad]
    fused = all(p.is_cuda for p in parameters)
    if config.name == "sgd":
        return torch.optim.SGD(
            parameters, lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=fused
        )
    return torch.optim.AdamW(parameters, lr=config.lr, weight_decay=config.weight_decay, fused=fused)
