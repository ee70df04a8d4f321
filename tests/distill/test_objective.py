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


@pytest.fixture
def half_labelled(batch):
    """The batch with two rows of no class, and of the others one that the teacher gets right."""
    teacher = batch["teacher"].clone()
    teacher[2] = batch["text"][2]
    return {**batch, "teacher": teacher, "labels": torch.tensor([0, -1, 2, 3, -1, 0])}


@pytest.mark.parametrize("filtered", [False, True])
def test_rows_without_a_label_are_seen_by_all_but_cls_and_the_filter(half_labelled, filtered):
    config = LossConfig(**dict.fromkeys(LOSS_TERMS, 1.0), vlalign_k=3, vlalign_filter=filtered)
    losses = distillation_objective(**half_labelled, config=config)
    student, teacher, text, captions = (
        half_labelled[name].detach().double() for name in ("student", "teacher", "text", "captions")
    )
    s, t, w, c = (rows / rows.norm(dim=1, keepdim=True) for rows in (student, teacher, text, captions))
    labels, rows = half_labelled["labels"].tolist(), range(B)
    scores = (s @ w.T / config.temperature).log_softmax(dim=1)
    has = [i for i in rows if labels[i] >= 0]
    nearest = (t @ w.T).topk(3, dim=1).indices.tolist()
    kept = [i for i in rows if labels[i] < 0 or nearest[i][0] == labels[i]] if filtered else list(rows)
    assert kept == ([1, 2, 4] if filtered else [*rows])
    divergence = []
    for i in kept:
        ours = (s[i] @ w[nearest[i]].T / config.temperature).log_softmax(dim=0)
        theirs = (t[i] @ w[nearest[i]].T / config.temperature).log_softmax(dim=0)
        divergence.append((theirs.exp() * (theirs - ours)).sum())
    pairs = s @ t.T / config.temperature
    rivals = [[j for j in rows if j != i and (labels[j] != labels[i] or labels[i] < 0)] for i in rows]
    own = [-(s[i] @ c[[i, *rivals[i]]].T).log_softmax(0)[0] for i in rows]
    expected = {
        "cls": torch.stack([-scores[i, labels[i]] for i in has]).mean(),
        "vlalign": torch.stack(divergence).mean(),
        "mse": (s - t).square().sum(dim=1).mean(),
        "mse_raw": torch.log1p((student - teacher).square().sum(dim=1).mean() / 10),
        "im_cst": -(pairs.log_softmax(1).diag().mean() + pairs.log_softmax(0).diag().mean()) / 2,
        "cap": torch.stack(own).mean(),
    }
    expected["total"] = sum(expected.values())
    torch.testing.assert_close(
        {name: loss.double() for name, loss in losses.items()}, expected, rtol=1e-5, atol=1e-6
    )


def test_a_batch_without_a_label_leaves_cls_zero_and_trains_on_the_rest(batch):
    batch["labels"] = torch.full((B,), -1)
    losses = distillation_objective(
        **batch, config=LossConfig(cls=1.0, mse=1.0, vlalign=1.0, vlalign_filter=True)
    )
    assert losses["cls"].item() == 0
    assert losses["vlalign"].item() > 0
    (of_cls,) = torch.autograd.grad(losses["cls"], batch["student"], retain_graph=True)
    losses["total"].backward()
    assert of_cls.abs().sum() == 0
    assert 0 < batch["student"].grad.abs().sum() < float("inf")


def test_further_negatives_of_im_cst_are_those_of_a_bank_that_are_not_the_images_own(batch):
    bank = torch.cat([torch.randn(4, D, generator=torch.Generator().manual_seed(1)), batch["teacher"][2:3]])
    bank = torch.nn.functional.normalize(bank, dim=1)
    config = LossConfig(cls=0, im_cst=1, im_cst_temperature=0.2, im_cst_bidirectional=False)
    unit = {
        name: torch.nn.functional.normalize(rows.detach().double(), dim=1)
        for name, rows in (("student", batch["student"]), ("teacher", batch["teacher"]), ("bank", bank))
    }
    losses = []
    for i in range(B):
        among = [unit["student"][i] @ row / 0.2 for row in unit["teacher"]]
        among += [unit["student"][i] @ row / 0.2 for j, row in enumerate(unit["bank"]) if (i, j) != (2, 4)]
        losses.append(torch.stack(among).logsumexp(dim=0) - among[i])
    got = distillation_objective(**batch, config=config, bank=bank)["im_cst"].item()
    assert got == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize(("temperature", "effective"), [(0.0, 1.0), (2.0, 2.0)])
def test_standardized_vlalign_compares_logits_of_mean_0_and_deviation_1(batch, temperature, effective):
    config = LossConfig(
        cls=0, vlalign=1, vlalign_k=3, vlalign_standardize=True, vlalign_temperature=temperature
    )
    student, teacher, text = (
        torch.nn.functional.normalize(batch[name].detach().double(), dim=1)
        for name in ("student", "teacher", "text")
    )
    theirs, nearest = (teacher @ text.T).topk(3, dim=1)
    ours = (student @ text.T).gather(1, nearest)
    p, q = (
        ((rows - rows.mean(1, keepdim=True)) / rows.std(1, correction=0, keepdim=True) / effective).softmax(1)
        for rows in (theirs, ours)
    )
    expected = (p * (p.log() - q.log())).sum(dim=1).mean()
    assert distillation_objective(**batch, config=config)["vlalign"].item() == pytest.approx(
        expected.item(), rel=1e-5
    )


def test_vlalign_has_a_temperature_of_its_own(batch):
    both = LossConfig(cls=0, vlalign=1, vlalign_k=3, temperature=0.2)
    own = LossConfig(cls=0, vlalign=1, vlalign_k=3, vlalign_temperature=0.2)
    one, other = (distillation_objective(**batch, config=config)["vlalign"] for config in (both, own))
    torch.testing.assert_close(one, other)
