from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from distill.tip_adapter import retrieval_logits

B, C, M, D = 4, 3, 2, 6


@pytest.fixture
def tensors():
    generator = torch.Generator().manual_seed(0)
    student, text = torch.randn(B, D, generator=generator), torch.randn(C, D, generator=generator)
    return student, text, F.normalize(torch.randn(C, M, D, generator=generator), dim=2)


def test_retrieval_equals_the_formula_written_out(tensors):
    student, text, support = (x.double() for x in tensors)
    logits = retrieval_logits(*tensors, alpha=0.7, beta=3.0)
    for b in range(B):
        for c in range(C):
            s, t = student[b] / student[b].norm(), text[c] / text[c].norm()
            term = sum(math.exp(-3.0 * (1 - float(s @ support[c, m]))) for m in range(M))
            assert float(logits[b, c]) == pytest.approx(float(s @ t) + 0.7 * term, rel=1e-5)


def test_without_weight_the_support_says_nothing(tensors):
    student, text, support = tensors
    plain = F.normalize(student, dim=1) @ F.normalize(text, dim=1).T
    torch.testing.assert_close(retrieval_logits(student, text, support, alpha=0.0), plain)


def test_an_image_that_is_its_own_support_counts_one_for_it(tensors):
    student, text, support = tensors
    support = support.clone()
    support[1, 0] = F.normalize(student[0], dim=0)
    with_it = retrieval_logits(student, text, support)[0, 1]
    without = retrieval_logits(student, text, support[:, 1:])[0, 1]
    assert float(with_it - without) == pytest.approx(1.0, rel=1e-5)


def test_the_order_of_the_support_does_not_matter(tensors):
    student, text, support = tensors
    torch.testing.assert_close(
        retrieval_logits(student, text, support), retrieval_logits(student, text, support.flip(1))
    )
