from __future__ import annotations

import pytest
import torch

from distill.config import LOSS_TERMS, LossConfig
from distill.objective import distillation_objective

B, C, D = 6, 5, 8


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    student, teacher, captions = (torch.randn(B, D, generator=generator) for _ in range(3))
    return {
        "student": student.requires_grad_(),
        "teacher": teacher,
        "text": torch.randn(C, D, generator=generator),
        "labels": torch.tensor([0, 1, 2, 3, 4, 0]),
        "captions": captions,
    }


def test_captions_are_asked_for_before_anything_is_computed(batch):
    batch["captions"] = None
    with pytest.raises(ValueError, match="no caption embeddings"):
        distillation_objective(**batch, config=LossConfig(cap=1.0))


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_a_term_that_is_off_is_not_in_the_result(batch, name):
    config = LossConfig(**{**dict.fromkeys(LOSS_TERMS, 1.0), name: 0.0})
    assert set(distillation_objective(**batch, config=config)) == {*LOSS_TERMS, "total"} - {name}


def test_no_term_gives_a_zero_that_can_be_differentiated(batch):
    total = distillation_objective(**batch, config=LossConfig(cls=0.0))["total"]
    total.backward()
    assert total.item() == 0
    assert batch["student"].grad.abs().sum() == 0


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_only_terms_of_the_raw_rows_notice_their_length(batch, name):
    config = LossConfig(**{**dict.fromkeys(LOSS_TERMS, 0.0), name: 1.0})
    one = distillation_objective(**batch, config=config)["total"].item()
    batch["student"] = 3 * batch["student"]
    three = distillation_objective(**batch, config=config)["total"].item()
    assert (one == pytest.approx(three, rel=1e-5)) == (name != "mse_raw")


@pytest.mark.parametrize("name", LOSS_TERMS)
def test_the_order_of_the_batch_does_not_matter(batch, name):
    config = LossConfig(**{**dict.fromkeys(LOSS_TERMS, 0.0), name: 1.0})
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = {key: value if key == "text" else value[order] for key, value in batch.items()}
    assert distillation_objective(**shuffled, config=config)["total"].item() == pytest.approx(
        distillation_objective(**batch, config=config)["total"].item(), rel=1e-5
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_changes_no_loss_and_no_gradient(batch, dtype):
    config = LossConfig(**dict.fromkeys(LOSS_TERMS, 1.0), vlalign_k=3)
    expected = distillation_objective(**batch, config=config)
    (gradient,) = torch.autograd.grad(expected["total"], batch["student"])
    with torch.autocast("cpu", dtype=dtype):
        losses = distillation_objective(**batch, config=config)
    # In half the width the third digit would differ.
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(torch.autograd.grad(losses["total"], batch["student"])[0], gradient)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_of_half_the_width_give_finite_losses_in_float32(batch, dtype):
    config = LossConfig(**dict.fromkeys(LOSS_TERMS, 1.0))
    student = (300 * batch["student"].detach()).to(dtype).requires_grad_()
    parts = distillation_objective(**{**batch, "student": student}, config=config)
    parts["total"].backward()
    assert all(part.dtype == torch.float32 and torch.isfinite(part) for part in parts.values())
    assert torch.isfinite(student.grad).all()


def test_the_filter_keeps_the_images_whose_nearest_text_is_their_label(batch):
    config = LossConfig(cls=0.0, vlalign=1.0, vlalign_filter=True)
    nearest = (
        torch.nn.functional.normalize(batch["teacher"], dim=1)
        @ torch.nn.functional.normalize(batch["text"], dim=1).T
    )
    right = nearest.argmax(dim=1)
    keep = torch.tensor([True, False, True, True, False, False])
    batch["labels"] = torch.where(keep, right, (right + 1) % C)
    kept = {key: value if key == "text" else value[keep] for key, value in batch.items()}
    assert distillation_objective(**batch, config=config)["total"].item() == pytest.approx(
        distillation_objective(**kept, config=LossConfig(cls=0.0, vlalign=1.0))["total"].item(), rel=1e-5
    )
