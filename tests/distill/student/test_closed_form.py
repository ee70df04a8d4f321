from __future__ import annotations

import numpy as np
import pytest
import torch

from distill.student import closed_form
from distill.student.closed_form import Rows, best_of, fit, mean_cosine, moments_of


def rows_of(features, targets):
    return Rows(
        at=np.arange(len(features)), read=lambda at: (features[at], targets[at]), features=features.shape[1]
    )


def drawn(count, width, dim=5):
    generator = torch.Generator().manual_seed(count)
    features = torch.randn(count, width, generator=generator) * 3 + 20
    return features, torch.nn.functional.normalize(torch.randn(count, dim, generator=generator), dim=1)


def by_formula(features, targets, ridge):
    """W = (X'X + l n m I)^-1 X'V as numpy solves it, and the bias that gives the mean for the mean."""
    x, v = features.double().numpy(), targets.double().numpy()
    centre, mean = x.mean(axis=0), v.mean(axis=0)
    x, v = x - centre, v - mean
    added = ridge * len(x) * np.square(x).mean() * np.eye(x.shape[1])
    weight = np.linalg.solve(x.T @ x + added, x.T @ v)
    return weight.T, mean - centre @ weight


@pytest.mark.parametrize("count", [40, 9], ids=["more rows", "more features"])
@pytest.mark.parametrize("ridge", [0.03, 3.0])
def test_the_head_is_that_of_the_formula(count, ridge, monkeypatch):
    monkeypatch.setattr(closed_form, "NUMBERS_AT_ONCE", 60)  # several blocks
    features, targets = drawn(count, 12)
    head = fit(rows_of(features, targets)).head(ridge)
    weight, bias = by_formula(features, targets, ridge)
    np.testing.assert_allclose(head.weight.numpy(), weight, atol=1e-10)
    np.testing.assert_allclose(head.bias.numpy(), bias, atol=1e-10)


def test_the_mean_row_gives_the_mean_target():
    features, targets = drawn(30, 8)
    head = fit(rows_of(features, targets)).head(1.0)
    torch.testing.assert_close(head(features.double().mean(dim=0)[None])[0], targets.double().mean(dim=0))


def test_a_small_deviation_beside_a_large_mean_is_kept(monkeypatch):
    monkeypatch.setattr(closed_form, "NUMBERS_AT_ONCE", 60)
    features, targets = drawn(50, 6)
    moments = moments_of(rows_of(features.double() + 1e8, targets))
    torch.testing.assert_close(
        moments.deviation, features.double().std(dim=0, correction=0), rtol=1e-6, atol=0
    )


def test_lambda_is_the_best_by_the_score_and_of_equals_the_largest():
    ridge = fit(rows_of(*drawn(30, 8)))
    norm = lambda head: -abs(float(head.weight.norm()) - float(ridge.head(0.3).weight.norm()))  # noqa: E731
    chosen, head, scores = best_of(ridge, norm)
    assert (chosen, list(scores)) == (0.3, [0.03, 0.1, 0.3, 1.0, 3.0])
    torch.testing.assert_close(head.weight, ridge.head(0.3).weight)
    assert best_of(ridge, lambda head: 0.0)[0] == 3.0


def test_rows_left_out_do_not_count():
    features, targets = drawn(40, 12)
    chosen = np.arange(40) % 2 == 0
    rows = rows_of(features, targets)
    half = fit(rows.where(chosen)).head(1.0)
    weight, _ = by_formula(features[::2], targets[::2], 1.0)
    np.testing.assert_allclose(half.weight.numpy(), weight, atol=1e-10)
    assert -1 <= mean_cosine(half, rows.where(~chosen)) <= 1


def test_rows_that_are_all_the_same_are_refused():
    features, targets = drawn(4, 3)
    with pytest.raises(ValueError, match="the same"):
        fit(rows_of(features * 0 + 1, targets))
    with pytest.raises(ValueError, match="no row"):
        moments_of(rows_of(features[:0], targets[:0]))
