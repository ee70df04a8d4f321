"""PHI-S by the paper's own map, whole, in float64: mean, principal components, Hadamard matrix, scalar."""

from __future__ import annotations

import pytest
import torch

from distill.student.phi_s import scale_of

D = 16


@pytest.fixture
def rows():
    """Rows of a mean and of very different, correlated variances."""
    generator = torch.Generator().manual_seed(0)
    plain = torch.randn(300, D, generator=generator, dtype=torch.float64)
    mixed = torch.randn(D, D, generator=generator, dtype=torch.float64)
    return (plain * torch.logspace(-2, 1, D, dtype=torch.float64)) @ mixed + torch.arange(D)


def standardised(rows):
    """Return rows by the map of the paper, which is fitted on them."""
    apart = rows - rows.mean(dim=0)
    variances, components = torch.linalg.eigh(apart.T @ apart / len(rows))
    signs = torch.ones(1, 1, dtype=torch.float64)
    while len(signs) < D:
        signs = torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), signs)
    return apart @ components @ (signs / D**0.5).T / variances.mean().sqrt()


def test_every_dimension_of_the_papers_map_has_variance_1(rows):
    variance = standardised(rows).square().mean(dim=0)
    assert torch.allclose(variance, torch.ones(D, dtype=torch.float64), rtol=1e-9)


def test_squared_distances_of_standardised_rows_are_the_plain_ones_by_the_scale(rows):
    mapped = standardised(rows)
    apart = (mapped - mapped.flip(0)).square().sum(dim=1)
    plain = (rows - rows.flip(0)).square().sum(dim=1)
    assert torch.allclose(apart, scale_of(rows) ** 2 * plain, rtol=1e-9)


def test_rows_that_are_all_the_same_have_no_scale():
    with pytest.raises(ValueError, match="all rows are the same"):
        scale_of(torch.ones(5, 4))
