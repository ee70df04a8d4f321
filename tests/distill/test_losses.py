from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from distill import losses
from distill.config import LOSS_TERMS, LossConfig
from distill.metrics import ImageScores
from distill.objective import distillation_objective

B, C, D, T = 6, 5, 8, 0.07


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    return {
        "student": draw(B, D).requires_grad_(),
        "teacher": draw(B, D),
        "text": draw(C, D),
        "captions": draw(B, D),
        "labels": torch.tensor([0, 1, 2, 3, 4, 0]),
    }


def unit(x):
    x = np.asarray(x.detach() if isinstance(x, torch.Tensor) else x, dtype=np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def log_softmax(x):
    x = x - x.max(axis=1, keepdims=True)
    return x - np.log(np.exp(x).sum(axis=1, keepdims=True))


def written_out(rows, config):
    """Every formula of the method in float64, term by term."""
    s, v, t, c = (unit(rows[name]) for name in ("student", "teacher", "text", "captions"))
    y = rows["labels"].numpy()
    raw = np.asarray(rows["student"].detach(), float) - np.asarray(rows["teacher"], float)
    pairs = s @ v.T / T
    forward, backward = -np.diag(log_softmax(pairs)).mean(), -np.diag(log_softmax(pairs.T)).mean()
    kl = []
    for i in range(B):
        nearest = np.argsort(-(v[i] @ t.T))[: min(config.vlalign_k, C)]
        p, q = (
            log_softmax((v[i] @ t[nearest].T / T)[None])[0],
            log_softmax((s[i] @ t[nearest].T / T)[None])[0],
        )
        if not config.vlalign_filter or nearest[0] == y[i]:
            kl.append((np.exp(p) * (p - q)).sum())
    masked = s @ c.T
    for i in range(B):
        for j in range(B):
            if i != j and y[i] == y[j]:
                masked[i, j] = -1e7
    return {
        "cls": -log_softmax(s @ t.T / T)[np.arange(B), y].mean(),
        "mse": ((s - v) ** 2).sum(axis=1).mean(),
        "mse_raw": np.log(1 + (raw**2).sum(axis=1).mean() / 10),
        "im_cst": (forward + backward) / 2 if config.im_cst_bidirectional else forward,
        "vlalign": np.mean(kl) if kl else 0.0,
        "cap": -np.diag(log_softmax(masked)).mean(),
    }


@pytest.mark.parametrize(
    "options",
    [{}, {"vlalign_k": 3}, {"vlalign_k": 1}, {"vlalign_filter": True}, {"im_cst_bidirectional": False}],
)
def test_every_term_equals_its_formula_in_float64(rows, options):
    config = LossConfig(**dict.fromkeys(LOSS_TERMS, 1.0), **options)
    parts = distillation_objective(
        rows["student"], rows["teacher"], rows["text"], rows["labels"], config, captions=rows["captions"]
    )
    expected = written_out(rows, config)
    for name in LOSS_TERMS:
        assert parts[name].item() == pytest.approx(expected[name], rel=1e-5, abs=1e-7), name
    assert parts["total"].item() == pytest.approx(sum(expected.values()), rel=1e-5)


def test_weights_multiply_their_terms(rows):
    config = LossConfig(cls=0.5, mse=3.0)
    parts = distillation_objective(rows["student"], rows["teacher"], rows["text"], rows["labels"], config)
    assert set(parts) == {"cls", "mse", "total"}
    assert parts["total"].item() == pytest.approx(0.5 * parts["cls"].item() + 3 * parts["mse"].item())


def test_given_neighbours_give_the_same_loss_as_computed_ones(rows):
    config = LossConfig(cls=0, vlalign=1, vlalign_k=3, vlalign_filter=True)
    similarity, nearest = (F.normalize(rows["teacher"], dim=1) @ F.normalize(rows["text"], dim=1).T).topk(
        4, dim=1
    )
    args = (rows["student"], rows["teacher"], rows["text"], rows["labels"], config)
    computed = distillation_objective(*args)["total"]
    assert distillation_objective(*args, neighbours=(nearest.int(), similarity))[
        "total"
    ].item() == pytest.approx(computed.item())
    fewer = distillation_objective(*args, neighbours=(nearest[:, :2], similarity[:, :2]))["total"]
    two = LossConfig(cls=0, vlalign=1, vlalign_k=2, vlalign_filter=True)
    assert fewer.item() == pytest.approx(distillation_objective(*args[:4], two)["total"].item())


def test_vlalign_is_zero_when_student_equals_teacher(rows):
    config = LossConfig(cls=0, vlalign=1)
    assert distillation_objective(rows["teacher"], rows["teacher"], rows["text"], rows["labels"], config)[
        "total"
    ].item() == pytest.approx(0, abs=1e-6)


def test_a_filter_that_keeps_no_image_gives_zero_with_zero_gradient():
    student = torch.randn(3, C, requires_grad=True)
    nearest = torch.zeros(3, 2, dtype=torch.int64)
    loss = losses.vlalign_loss(student, torch.randn(3, 2), nearest, keep_B=torch.zeros(3, dtype=torch.bool))
    loss.backward()
    assert loss.item() == 0
    assert student.grad.abs().sum() == 0


def test_caption_loss_needs_captions(rows):
    with pytest.raises(ValueError, match="caption"):
        distillation_objective(
            rows["student"], rows["teacher"], rows["text"], rows["labels"], LossConfig(cap=1)
        )


@settings(max_examples=25, deadline=None)
@given(
    batch=st.integers(1, 9),
    classes=st.integers(1, 9),
    k=st.integers(1, 300),
    scale=st.sampled_from([1e-4, 1.0, 1e4]),
)
def test_losses_are_finite_and_have_finite_gradients_for_any_shape_and_length(batch, classes, k, scale):
    generator = torch.Generator().manual_seed(batch * 100 + classes)
    student = (scale * torch.randn(batch, D, generator=generator)).requires_grad_()
    config = LossConfig(**dict.fromkeys(LOSS_TERMS, 1.0), vlalign_k=k)
    labels = torch.randint(classes, (batch,), generator=generator)
    draw = [torch.randn(n, D, generator=generator) for n in (batch, classes, batch)]
    parts = distillation_objective(student, draw[0], draw[1], labels, config, captions=draw[2])
    parts["total"].backward()
    assert all(torch.isfinite(part) for part in parts.values())
    assert torch.isfinite(student.grad).all()


def test_losses_are_the_same_under_bfloat16_autocast(rows):
    config = LossConfig(mse=1, im_cst=1, vlalign=1)
    args = (rows["student"], rows["teacher"], rows["text"], rows["labels"], config)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = distillation_objective(*args)["total"]
    assert low.item() == pytest.approx(distillation_objective(*args)["total"].item(), rel=0.02)


def test_macro_accuracy_is_the_mean_over_classes_present():
    labels = torch.tensor([0, 0, 0, 1, 3])
    logits = F.one_hot(torch.tensor([0, 0, 1, 1, 2]), 5).float()
    assert ImageScores.of(logits, labels).metrics().per_class_C[[0, 1, 3]].tolist() == pytest.approx(
        [200 / 3, 100, 0]
    )
    assert torch.isnan(ImageScores.of(logits, labels).metrics().per_class_C[[2, 4]]).all()
    assert ImageScores.of(logits, labels).metrics().accuracy == pytest.approx((200 / 3 + 100 + 0) / 3)
