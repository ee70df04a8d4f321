from __future__ import annotations

import pytest
from torch import nn

from cache.runtime.errors import UserError
from distill.robotics.student import build_episode_student
from distill.student.build import build_student
from distill.student.parts import head_of, head_parameters, trunk_batch_norms, trunk_parameters


@pytest.mark.parametrize(
    "arch", ["resnet18", "squeezenet1_1", "mobilenet_v3_small", "timm:test_resnet", "timm:test_vit"]
)
def test_a_head_is_the_layer_that_gives_the_embedding_and_the_trunk_is_the_rest(arch):
    student = build_student(arch, embed_dim=23, image_size=32)
    head = head_of(student)
    assert 23 in (getattr(head, "out_features", 0), getattr(head, "out_channels", 0))
    own, below = head_parameters(student), trunk_parameters(student)
    assert {id(p) for p in [*own, *below]} == {id(p) for p in student.parameters()}
    assert len(own) + len(below) == len(list(student.parameters()))
    assert len(own) == 2


def test_both_heads_of_episodes_and_their_bias_are_no_trunk():
    student = build_episode_student("resnet18", embed_dim=16, image_size=32, local=True)
    assert len(head_parameters(student)) == 5  # two layers of two, the bias
    assert len(trunk_batch_norms(student)) == 20


def test_a_student_without_layers_has_no_head():
    with pytest.raises(UserError, match="no layer that could be its head"):
        head_of(nn.Sequential(nn.Flatten()))
