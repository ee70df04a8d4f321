"""PHI-S: rows of a teacher standardised by one scalar (Ranzinger et al. 2024, arXiv 2410.01680).

A teacher's rows less their mean are turned into the basis of their principal components, and from there by a
rotation that gives every dimension the same variance: one scalar then makes it 1 in all of them. Nothing is
distorted, because a rotation and a scalar keep angles and ratios of distances. So a squared distance between
standardised rows is ``scale ** 2`` times the plain one, wherever it points: a loss of squared distances needs
nothing of the map but :func:`scale_of`, and what standardising brings it is that of several teachers none
weighs more for the size of its rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# A deviation of which no scale is made: all rows are one.
LEAST_VARIANCE = 1e-12


@dataclass(frozen=True, kw_only=True)
class PhiS:
    """The map of rows [..., D]: less ``mean`` [D], by ``rotation`` [D, D], times ``scale``; float64."""

    mean: Tensor
    rotation: Tensor
    scale: float

    def standardised(self, rows: Tensor) -> Tensor:
        """Return rows [..., D] of which every dimension has mean 0, variance 1 over the rows fitted on."""
        return self.scale * (rows.double() - self.mean) @ self.rotation.T

    def restored(self, rows: Tensor) -> Tensor:
        """Return standardised rows [..., D] in the teacher's own space."""
        return rows.double() @ self.rotation / self.scale + self.mean


def fit(rows: Tensor) -> PhiS:
    """Return the map of some rows [N, D]; ValueError where no row differs from another."""
    values = rows.double()
    mean = values.mean(dim=0)
    apart = values - mean
    variances, components = torch.linalg.eigh(apart.T @ apart / len(values))
    return PhiS(mean=mean, rotation=evening(variances) @ components.T, scale=scale_of(rows))


def scale_of(rows: Tensor) -> float:
    """Return the scalar of rows [N, D]: one over the root of the mean of their dimensions' variances.

    ValueError where no row differs from another.
    """
    variance = float(rows.double().var(dim=0, correction=0).mean())
    if not variance > LEAST_VARIANCE:
        raise ValueError("all rows are the same")
    return variance**-0.5


def evening(variances: Tensor) -> Tensor:
    """Return a rotation [D, D] after which independent numbers of ``variances`` [D] all have their mean.

    A Hadamard matrix where there is one of that size by Sylvester or Paley, whatever the variances; else one
    of D - 1 rotations of two dimensions each (Chan and Li 1983, SIAM J. Algebraic Discrete Methods 4), of
    these variances alone.
    """
    size = len(variances)
    signs = hadamard(size)
    return signs / size**0.5 if signs is not None else _by_pairs(variances.double())


def hadamard(size: int) -> Tensor | None:
    """Return a Hadamard matrix [D, D] of 1 and -1, float64, whose rows are orthogonal; None without one.

    Doubled (Sylvester) from a smaller one, or from the squares modulo a prime (Paley's first and second
    construction): of embeddings' usual sizes, 384, 512, 768, 1024, 1152, 1280 and 2048, each has one.
    """
    if size == 1:
        return torch.ones(1, 1, dtype=torch.float64)
    if size % 2:
        return None
    own = _paley(size) if size % 4 == 0 else None
    half = hadamard(size // 2) if own is None else None
    if half is not None:
        return torch.kron(torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64), half)
    return own


def _paley(size: int) -> Tensor | None:
    if _is_prime(size - 1):  # a prime that is 3 modulo 4
        skew = _bordered(size - 1)
        skew[1:, 0] = -1
        return skew + torch.eye(size, dtype=torch.float64)
    prime = size // 2 - 1
    if prime % 4 != 1 or not _is_prime(prime):
        return None
    symmetric, one = _bordered(prime), torch.eye(prime + 1, dtype=torch.float64)
    signs, other = torch.tensor([[[1.0, 1], [1, -1]], [[1, -1], [-1, -1]]], dtype=torch.float64)
    return torch.kron(symmetric, signs) + torch.kron(one, other)


def _bordered(prime: int) -> Tensor:
    """Return the conference matrix of a prime: which differences are squares modulo it, 1s around."""
    square = torch.full((prime,), -1.0, dtype=torch.float64)
    square[torch.arange(1, prime) ** 2 % prime] = 1
    square[0] = 0
    places = torch.arange(prime)
    matrix = torch.ones(prime + 1, prime + 1, dtype=torch.float64)
    matrix[0, 0] = 0
    matrix[1:, 1:] = square[(places[:, None] - places[None, :]) % prime]
    return matrix


def _is_prime(number: int) -> bool:
    return number > 1 and all(number % one for one in range(2, int(number**0.5) + 1))


def _by_pairs(variances: Tensor) -> Tensor:
    """Return the product of rotations of two dimensions, each of which gives one dimension the mean."""
    mean = float(variances.mean())
    matrix = torch.diag(variances)
    rotation = torch.eye(len(variances), dtype=torch.float64)
    left = set(range(len(variances)))
    while len(left) > 1:
        own = {i: float(matrix[i, i]) for i in left}
        low, high = min(own, key=own.__getitem__), max(own, key=own.__getitem__)
        between, below, above = float(matrix[low, high]), own[low] - mean, own[high] - mean
        if above - below < LEAST_VARIANCE:
            break
        # tan of the angle that leaves the mean at ``low``: below + 2 t between + t^2 above = 0.
        root = max(0.0, between**2 - above * below) ** 0.5
        tangent = (root - between) / above
        cosine = (1 + tangent**2) ** -0.5
        turn = torch.eye(2, dtype=torch.float64) * cosine
        turn[0, 1], turn[1, 0] = tangent * cosine, -tangent * cosine
        pair = [low, high]
        rotation[pair] = turn @ rotation[pair]
        matrix[pair] = turn @ matrix[pair]
        matrix[:, pair] = matrix[:, pair] @ turn.T
        left.remove(low)
    return rotation
