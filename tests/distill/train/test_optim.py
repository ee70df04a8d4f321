from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from cache.runtime.errors import UserError
from distill.config import OptimConfig, RunConfig
from distill.settings import with_settings
from distill.student.build import build_student
from distill.student.parts import head_parameters
from distill.train.optim import build_optimizer, check_optimizer


def normed():
    """A linear layer, of which the bias is not trained, and a batch norm."""
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    model[0].bias.requires_grad_(False)
    return model


def decays(optimizer):
    """The weight decay of every parameter, by its id."""
    return {id(own): group["weight_decay"] for group in optimizer.param_groups for own in group["params"]}


def scales(student, *settings):
    """How many times the rate each parameter has, by name."""
    config = with_settings(RunConfig(), settings).optim
    optimizer = build_optimizer(student, config)
    by_id = {id(own): group["lr_scale"] for group in optimizer.param_groups for own in group["params"]}
    return {name: by_id[id(own)] for name, own in student.named_parameters()}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_weight_decay_is_on_every_trained_parameter_where_it_is_on_all(name):
    optimizer = build_optimizer(normed(), OptimConfig(name=name, weight_decay=0.01, decay_all=True))
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.01
    assert len(group["params"]) == 3


@pytest.mark.parametrize("name", ["sgd", "adamw", "lamb"])
def test_norms_and_biases_do_not_decay_unless_all_do(name):
    model, learner = normed(), nn.Linear(2, 3)
    optimizer = build_optimizer(model, OptimConfig(name=name, weight_decay=0.01), learner)
    expected = {id(model[0].weight): 0.01, id(learner.weight): 0.01}
    expected |= {id(own): 0.0 for own in (model[1].weight, model[1].bias, learner.bias)}
    assert decays(optimizer) == expected


def test_what_a_model_of_timm_says_must_not_decay_does_not():
    student = build_student("timm:test_vit", embed_dim=8, image_size=32)
    own = decays(build_optimizer(student, OptimConfig(weight_decay=0.01)))
    assert own[id(student.pos_embed)] == 0
    assert own[id(student.patch_embed.proj.weight)] == 0.01


def test_a_layer_has_the_decay_times_the_rate_of_the_one_above_it():
    student = build_student("timm:test_vit", embed_dim=8, image_size=32)
    depth = len(student.blocks)
    rates = scales(student, "optim.layer_decay=0.5")
    assert rates["head.weight"] == 1
    assert rates["patch_embed.proj.weight"] == pytest.approx(0.5 ** (depth + 1))
    for i in range(depth):
        assert rates[f"blocks.{i}.mlp.fc1.weight"] == pytest.approx(0.5 ** (depth - i))
        assert rates[f"blocks.{i}.norm1.bias"] == pytest.approx(0.5 ** (depth - i))


@pytest.mark.parametrize("arch", ["timm:test_resnet", "mobilenet_v3_small"])
def test_the_trunk_has_its_share_of_the_rate_and_the_head_the_whole(arch):
    student = build_student(arch, embed_dim=8, image_size=32)
    head = {id(own) for own in head_parameters(student)}
    found = scales(student, "optim.trunk_scale=0.1")
    assert {*found.values()} == {1, 0.1}
    for name, scale in found.items():
        assert scale == (1 if id(student.get_parameter(name)) in head else 0.1)


def test_layers_and_trunk_multiply():
    student = build_student("timm:test_vit", embed_dim=8, image_size=32)
    both = scales(student, "optim.trunk_scale=0.1", "optim.layer_decay=0.5")
    layers = scales(student, "optim.layer_decay=0.5")
    assert both == {n: s * (1 if n.startswith("head.") else 0.1) for n, s in layers.items()}


def test_a_student_whose_layers_timm_does_not_know_is_one_line():
    student = build_student("mobilenet_v3_small", embed_dim=8, image_size=32)
    with pytest.raises(UserError, match=r"optim.layer_decay is 0.5, but timm knows no layers.*timm:NAME"):
        build_optimizer(student, OptimConfig(layer_decay=0.5))


@pytest.mark.parametrize("name", ["lion", "adan", "muon", "lars"])
def test_an_optimiser_of_timm_moves_a_student_and_goes_on_from_its_state(name):
    torch.manual_seed(0)
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    config = OptimConfig(name=name, lr=1e-3)
    ours = build_optimizer(one, config)
    given = torch.randn(3, 4)

    def step(model, optimizer):
        optimizer.zero_grad()
        model(given).square().mean().backward()
        optimizer.step()

    step(one, ours)
    other.load_state_dict(one.state_dict())
    theirs = build_optimizer(other, config)
    theirs.load_state_dict(deepcopy(ours.state_dict()))
    before = one.weight.detach().clone()
    step(one, ours)
    step(other, theirs)
    assert not torch.equal(one.weight, before)
    assert torch.equal(one.weight, other.weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("adamww", "optim.name is 'adamww'.*did you mean 'adamw'"),
        ("lino", "did you mean 'lion'"),
        ("bnbadam", "give sgd"),
    ],
)
def test_an_unknown_optimiser_is_one_line_with_near_names(name, message):
    with pytest.raises(UserError, match=message) as error:
        check_optimizer(OptimConfig(name=name))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optim.clip_norm=-1"], "optim.clip_norm is -1.0.*0 for none"),
        (["optim.accumulate=0"], "optim.accumulate is 0"),
        (["optim.ema=1"], "optim.ema is 1.0.*below 1"),
        (["optim.average_with_start=1"], "optim.average_with_start is 1.0"),
        (["optim.layer_decay=0"], "optim.layer_decay is 0.0"),
        (["optim.trunk_scale=0"], "optim.trunk_scale is 0.0"),
        (["student.freeze_epochs=-1"], "student.freeze_epochs is -1"),
        (
            ["optim.trunk_scale=0.1", "student.freeze_epochs=90"],
            "optim.trunk_scale is 0.1, but the trunk is never trained",
        ),
    ],
)
def test_settings_that_mean_nothing_are_one_line(settings, message):
    with pytest.raises(UserError, match=message) as error:
        with_settings(RunConfig(), settings)
    assert "\n" not in str(error.value)
