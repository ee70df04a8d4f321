from __future__ import annotations

import pytest
import torch

from cache.runtime.errors import UserError
from distill.config import OptimConfig
from distill.train.optim import build_optimizer, learning_rate, lost_schedule, set_epoch


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("epochs", [5, 20, 90])
def test_onecycle_equals_torchs_scheduler_stepped_once_an_epoch(name, epochs):
    config = OptimConfig(name=name, lr=0.1, schedule="onecycle")
    ours, theirs = (build_optimizer(torch.nn.Linear(2, 2), config) for _ in range(2))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.1, total_steps=epochs)
    for epoch in range(epochs):
        assert set_epoch(ours, config, epoch=epoch, epochs=epochs) == pytest.approx(
            theirs.param_groups[0]["lr"]
        )
        for key in ("momentum", "betas"):
            if key in theirs.param_groups[0]:
                assert ours.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key])
        theirs.step()
        if epoch < epochs - 1:
            scheduler.step()


def test_step_equals_torchs_multistep():
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60], gamma=0.1)
    for epoch in range(90):
        assert learning_rate(OptimConfig(lr=0.05), epoch=epoch, epochs=90) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
        optimizer.step()
        scheduler.step()


def test_cosine_and_constant_end_where_they_should():
    cosine, constant = (OptimConfig(lr=1.0, schedule=name) for name in ("cosine", "constant"))
    assert learning_rate(cosine, epoch=0, epochs=10) == 1.0
    assert learning_rate(cosine, epoch=5, epochs=10) == pytest.approx(0.5)
    assert learning_rate(constant, epoch=9, epochs=10) == 1.0


def test_cosine_equals_torchs_cosine_annealing():
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    for epoch in range(12):
        assert learning_rate(OptimConfig(lr=0.3, schedule="cosine"), epoch=epoch, epochs=12) == pytest.approx(
            optimizer.param_groups[0]["lr"]
        )
        optimizer.step()
        scheduler.step()


def test_an_unknown_schedule_suggests_near_ones():
    with pytest.raises(UserError, match="did you mean 'cosine'"):
        OptimConfig(schedule="cosin")


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_is_applied_to_every_trained_parameter(name):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    optimizer = build_optimizer(model, OptimConfig(name=name, weight_decay=0.01))
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.01
    assert len(group["params"]) == 3


@pytest.mark.parametrize(
    ("schedule", "epochs", "message"),
    [
        (
            "step",
            12,
            "milestones at 30 and 60, after the run's 12 epochs: the rate never falls; set optim.milestones=[4,8]",
        ),
        ("step", 30, "optim.milestones=[10,20]"),
        ("step", 2, "optim.milestones=[1]"),
        ("onecycle", 1, "the run's only epoch a rate of 2e-07 or so"),
        ("onecycle", 4, "1 of the run's 4 epochs"),
        ("step", 31, ""),
        ("step", 1, ""),  # one epoch has one rate, whatever the schedule
        ("onecycle", 5, ""),
        ("cosine", 1, ""),
        ("constant", 3, ""),
    ],
)
def test_a_schedule_that_cannot_do_its_work_in_so_few_epochs_is_told(schedule, epochs, message):
    told = lost_schedule(OptimConfig(schedule=schedule), epochs)
    assert message in told
    assert bool(told) == bool(message)
    if "milestones=[" in told:
        places = [int(place) for place in told.partition("[")[2].strip("]").split(",")]
        config = OptimConfig(lr=1.0, milestones=tuple(places))
        last = learning_rate(config, epoch=epochs - 1, epochs=epochs)
        assert last == pytest.approx(0.1 ** len(places))  # what it says to set does what it should
