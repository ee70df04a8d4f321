"""Several teachers: what each counts of an image, in float64 by the paper's formula, and in the objective."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from distill import losses
from distill.config import LOSS_TERMS, LossConfig
from distill.objective import Scales, distillation_objective
from distill.student.phi_s import scale_of

B, C, D = 6, 5, 8


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    student, teacher, captions = (torch.randn(B, D, generator=generator) for _ in range(3))
    return {
        "student": student,
        "teacher": teacher,
        "text": torch.randn(C, D, generator=generator),
        "labels": torch.tensor([0, 1, 2, 3, 4, 0]),
        "captions": captions,
    }


def alone(name, **more):
    return LossConfig(**{**dict.fromkeys(LOSS_TERMS, 0.0), name: 1.0, **more})


def test_weights_are_the_papers_by_the_number_of_teachers():
    logits = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2])
    entropy = -logits.log_softmax(dim=2)[torch.arange(7), :, labels]
    papers = (1 - entropy.exp() / entropy.exp().sum(dim=1, keepdim=True)) / 2
    weights = losses.teacher_weights(entropy, labels, judges_T=[True] * 3)
    assert torch.allclose(weights.double(), 3 * papers, atol=1e-6)
    assert torch.allclose(weights.sum(dim=1), torch.full((7,), 3.0))


def test_of_two_teachers_it_is_the_share_of_their_probabilities():
    right = torch.tensor([[0.9, 0.1], [0.5, 0.5], [0.2, 0.6]])
    weights = losses.teacher_weights(-right.log(), torch.tensor([0, 1, 2]), judges_T=[True, True])
    assert torch.allclose(weights, 2 * right / right.sum(dim=1, keepdim=True), atol=1e-6)


def test_an_image_without_a_label_and_a_teacher_without_texts_count_1():
    entropy = torch.tensor([[0.1, 5.0, 3.0], [0.1, 5.0, 3.0]])
    weights = losses.teacher_weights(entropy, torch.tensor([0, -1]), judges_T=[True, False, True])
    assert weights[1].tolist() == [1, 1, 1]
    assert weights[0, 1] == 1
    assert weights[0, 0] > 1 > weights[0, 2]
    assert float(weights[0].sum()) == pytest.approx(3)
    only = losses.teacher_weights(entropy, torch.tensor([0, 0]), judges_T=[False, True, False])
    assert (only == 1).all()


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_weights_of_1_change_nothing(batch, name):
    plain = distillation_objective(**batch, config=alone(name))
    ones = distillation_objective(**batch, config=alone(name), weights=torch.ones(B))
    assert ones["total"].item() == pytest.approx(plain["total"].item(), rel=1e-6)


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_all_but_the_labels_loss_are_weighted(batch, name):
    config = alone(name, vlalign_filter=name == "vlalign")
    plain = distillation_objective(**batch, config=config)["total"]
    none = distillation_objective(**batch, config=config, weights=torch.zeros(B))["total"]
    assert none.item() == (plain.item() if name == "cls" else 0)


def test_standardised_rows_give_the_mean_row_a_loss_of_1(batch):
    """PHI-S gives every dimension a variance of 1; the loss is that of a dimension."""
    unit = F.normalize(batch["teacher"], dim=1)
    scales = Scales(unit=scale_of(unit) / D**0.5)
    ours = distillation_objective(**batch, config=alone("mse"), scales=scales)["mse"]
    deviation = unit.double().var(dim=0, correction=0).mean().sqrt()
    standard = (F.normalize(batch["student"], dim=1) / deviation, unit / deviation)
    assert ours.item() == pytest.approx(F.mse_loss(*standard).item(), rel=1e-5)
    raw = batch["teacher"]
    scales = Scales(raw=scale_of(raw) / D**0.5)
    mean_row = raw.mean(dim=0).expand_as(raw)
    of_mean = distillation_objective(**{**batch, "student": mean_row}, config=alone("mse_raw"), scales=scales)
    assert of_mean["mse_raw"].exp().item() == pytest.approx(1.1, rel=1e-5)
