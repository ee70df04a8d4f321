"""PHI-S by the paper's own formula, in float64."""

from __future__ import annotations

import pytest
import torch

from distill.student import phi_s


@pytest.fixture
def rows():
    """Rows of a mean and of very different variances, correlated, of any size."""

    def make(size, count=300):
        generator = torch.Generator().manual_seed(size)
        plain = torch.randn(count, size, generator=generator, dtype=torch.float64)
        mixed = torch.randn(size, size, generator=generator, dtype=torch.float64)
        spread = torch.logspace(-2, 1, size, dtype=torch.float64)
        return (plain * spread) @ mixed + torch.arange(size)

    return make


@pytest.mark.parametrize("size", [1, 2, 4, 8, 12, 20, 24, 28, 36, 384, 512, 768, 1024, 1152, 1280])
def test_a_hadamard_matrix_is_of_signs_and_its_rows_are_orthogonal(size):
    signs = phi_s.hadamard(size)
    assert signs.shape == (size, size)
    assert (signs.abs() == 1).all()
    assert torch.equal(signs @ signs.T, size * torch.eye(size, dtype=torch.float64))


@pytest.mark.parametrize("size", [3, 6, 10, 100, 92])
def test_of_a_size_without_one_the_rotation_still_evens_the_variances(size):
    """92 has a Hadamard matrix that neither construction finds, 100 = 2 (49 + 1) one of a prime power."""
    assert phi_s.hadamard(size) is None
    variances = torch.logspace(-3, 1, size, dtype=torch.float64)
    turned = phi_s.evening(variances)
    assert torch.allclose(turned @ turned.T, torch.eye(size, dtype=torch.float64), atol=1e-12)
    even = (turned @ torch.diag(variances) @ turned.T).diagonal()
    assert torch.allclose(even, variances.mean().expand(size), rtol=1e-9)


@pytest.mark.parametrize("size", [2, 6, 7, 12, 16])
def test_every_dimension_has_mean_0_and_variance_1_and_the_way_back_is_exact(rows, size):
    given = rows(size)
    fitted = phi_s.fit(given)
    standard = fitted.standardised(given)
    assert torch.allclose(standard.mean(dim=0), torch.zeros(size, dtype=torch.float64), atol=1e-9)
    variance = standard.square().mean(dim=0)
    assert torch.allclose(variance, torch.ones(size, dtype=torch.float64), rtol=1e-9)
    assert torch.allclose(fitted.restored(standard), given, rtol=1e-9)


def test_the_squared_distance_of_standardised_rows_is_the_plain_one_by_the_scale(rows):
    given, others = rows(12), rows(12).flip(0)
    fitted = phi_s.fit(given)
    apart = (fitted.standardised(given) - fitted.standardised(others)).square().sum(dim=1)
    plain = (given - others).square().sum(dim=1)
    assert torch.allclose(apart, phi_s.scale_of(given) ** 2 * plain, rtol=1e-9)


def test_rows_that_are_all_the_same_have_no_scale():
    with pytest.raises(ValueError, match="all rows are the same"):
        phi_s.fit(torch.ones(5, 4))
