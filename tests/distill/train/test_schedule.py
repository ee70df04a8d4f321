from __future__ import annotations

import math

import pytest
import torch

from cache.runtime.errors import UserError
from distill.config import OptimConfig
from distill.train.optim import build_optimizer
from distill.train.schedule import Moment, cycled_momentum, learning_rate, lost_schedule, set_rate


def by_epoch(**settings):
    return OptimConfig(schedule_by="epoch", **settings)


def rates(config, *, epochs, steps):
    """The rates of every step of a run."""
    return [
        learning_rate(config, Moment(epoch=epoch, epochs=epochs, step=step, steps=steps))
        for epoch in range(epochs)
        for step in range(steps)
    ]


@pytest.mark.parametrize("name", ["sgd", "adamw"])
@pytest.mark.parametrize("epochs", [5, 20, 90])
def test_onecycle_by_epoch_equals_torchs_scheduler_stepped_once_an_epoch(name, epochs):
    config = by_epoch(name=name, lr=0.1, schedule="onecycle")
    ours, theirs = (build_optimizer(torch.nn.Linear(2, 2), config) for _ in range(2))
    scheduler = torch.optim.lr_scheduler.OneCycleLR(theirs, max_lr=0.1, total_steps=epochs)
    for epoch in range(epochs):
        set_rate(ours, config, Moment(epoch=epoch, epochs=epochs, step=3, steps=7))
        for key in ("lr", "momentum", "betas"):
            if key in theirs.param_groups[0]:
                assert ours.param_groups[0][key] == pytest.approx(theirs.param_groups[0][key])
        theirs.step()
        if epoch < epochs - 1:
            scheduler.step()


def test_onecycle_by_step_is_the_curve_that_torchs_scheduler_takes_in_many_steps():
    config, steps = OptimConfig(lr=0.1, schedule="onecycle"), 20_000
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=0.1, total_steps=2 * steps)
    for step in range(2 * steps):
        if step % 1000 == 0:
            moment = Moment(epoch=step // steps, epochs=2, step=step % steps, steps=steps)
            group = optimizer.param_groups[0]
            assert learning_rate(config, moment) == pytest.approx(group["lr"], abs=1e-4 * 0.1)
            assert cycled_momentum(config, moment) == pytest.approx(group["momentum"], abs=1e-4)
        optimizer.step()
        scheduler.step()


def test_step_by_epoch_equals_torchs_multistep_at_a_third_and_two_thirds():
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.05)
    scheduler = torch.optim.lr_scheduler.MultiStepLR(optimizer, [30, 60], gamma=0.1)
    for epoch in range(90):
        moment = Moment(epoch=epoch, epochs=90, step=4, steps=5)
        assert learning_rate(by_epoch(lr=0.05), moment) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-12
        )
        optimizer.step()
        scheduler.step()


def test_cosine_by_epoch_equals_torchs_cosine_annealing():
    optimizer = torch.optim.SGD(torch.nn.Linear(2, 2).parameters(), lr=0.3)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
    config = by_epoch(lr=0.3, schedule="cosine")
    for epoch in range(12):
        moment = Moment(epoch=epoch, epochs=12)
        assert learning_rate(config, moment) == pytest.approx(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()


def test_a_schedule_by_step_is_the_same_curve_however_the_steps_are_cut_into_epochs():
    for schedule in ("step", "onecycle", "cosine", "constant"):
        config = OptimConfig(lr=1.0, schedule=schedule)
        one, many = rates(config, epochs=1, steps=60), rates(config, epochs=20, steps=3)
        assert one == pytest.approx(many)


@pytest.mark.parametrize(("schedule", "epochs", "steps"), [("step", 20, 3), ("step", 1, 3), ("cosine", 1, 8), ("onecycle", 1, 40)])  # fmt: skip
def test_a_short_run_anneals(schedule, epochs, steps):
    all_rates = rates(OptimConfig(lr=1.0, schedule=schedule), epochs=epochs, steps=steps)
    assert max(all_rates) > 0.98
    assert all_rates[-1] < 0.02
    if schedule == "step":
        third = epochs * steps // 3
        assert all_rates == pytest.approx([1.0] * third + [0.1] * third + [0.01] * third)


def test_a_warm_up_is_a_straight_line_after_which_cosine_falls_over_what_is_left():
    config = OptimConfig(lr=2.0, schedule="cosine", warmup=0.25)
    for step, rate in enumerate(rates(config, epochs=2, steps=40)):
        share = (step + 0.5) / 80
        expected = 2.0 * share / 0.25
        if share > 0.25:
            expected = 1 + math.cos(math.pi * (share - 0.25) / 0.75)
        assert rate == pytest.approx(expected)
    whole_epochs = by_epoch(lr=2.0, schedule="constant", warmup=0.5)
    assert rates(whole_epochs, epochs=2, steps=2) == pytest.approx([0.5, 1.5, 2.0, 2.0])


def test_every_group_has_its_share_of_the_rate():
    groups = [{"params": [torch.zeros(1)], "lr_scale": 0.1}, {"params": [torch.zeros(1)]}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    set_rate(optimizer, OptimConfig(lr=0.5, schedule="constant"), Moment(epoch=0, epochs=1))
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.05, 0.5])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosin"}, "did you mean 'cosine'"),
        ({"milestones": (30.0, 60.0)}, r"optim.milestones is \(30.0, 60.0\).*give shares of the run"),
        ({"warmup": 1.0}, "optim.warmup is 1.0.*below 1"),
        ({"warmup": 0.1, "schedule": "onecycle"}, "onecycle, which has a warm-up of its own"),
    ],
)
def test_a_schedule_that_cannot_be_is_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        OptimConfig(**settings)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("by", "schedule", "epochs", "message"),
    [
        ("epoch", "onecycle", 1, "the run's only epoch a rate of 2e-07 or so, which trains nothing"),
        ("epoch", "onecycle", 4, "1 of the run's 4 epochs"),
        ("epoch", "step", 1, "gives the run's only epoch one rate, which never falls: set optim.schedule_by=step"),
        ("epoch", "cosine", 1, "which never falls"),
        ("epoch", "step", 20, ""),
        ("epoch", "onecycle", 5, ""),
        ("epoch", "constant", 1, ""),
        ("step", "onecycle", 1, ""),
        ("step", "step", 1, ""),
    ],
)  # fmt: skip
def test_a_schedule_by_epoch_that_cannot_do_its_work_in_so_few_epochs_is_told(by, schedule, epochs, message):
    told = lost_schedule(OptimConfig(schedule=schedule, schedule_by=by), epochs)
    assert message in told
    assert bool(told) == bool(message)
    assert "\n" not in told


def test_a_step_schedule_without_milestones_is_told():
    assert "its rate never falls" in lost_schedule(OptimConfig(schedule="step", milestones=()), 9)
