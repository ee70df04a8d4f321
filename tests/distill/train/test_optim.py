from __future__ import annotations

import pytest
import torch

from distill.config import OptimConfig
from distill.train.optim import build_optimizer


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_is_applied_to_every_trained_parameter(name):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    optimizer = build_optimizer(model, OptimConfig(name=name, weight_decay=0.01))
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.01
    assert len(group["params"]) == 3
