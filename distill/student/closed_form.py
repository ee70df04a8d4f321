"""A linear head without training: ridge from features of a frozen trunk to the teacher's rows.

With features X [N, F] and targets V [N, D], both less their mean, W = (X'X + l n m I)^-1 X'V, where m is the
mean square of X's entries: so l means the same whatever the features' scale and number. All l come from one
eigendecomposition, of X'X [F, F], or where there are fewer rows than features of XX' [N, N]. Sums are
float64, and rows are read a block at a time: nothing of size N x F is in memory where N is larger than F.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Indices = NDArray[np.int64]
LAMBDAS = (0.03, 0.1, 0.3, 1.0, 3.0)
# 64 MB of float64.
NUMBERS_AT_ONCE = 2**23


@dataclass(frozen=True, kw_only=True)
class Rows:
    """Features and targets of N rows: ``read`` gives those ``at`` some places, [B, F] and [B, D]."""

    at: Indices
    read: Callable[[Indices], tuple[Tensor, Tensor]]
    features: int

    def __len__(self) -> int:
        return len(self.at)

    def where(self, chosen: NDArray[np.bool_]) -> Rows:
        """Return some of the rows."""
        return replace(self, at=self.at[chosen])

    def blocks(self) -> Iterator[tuple[slice, Tensor, Tensor]]:
        """Yield every block's place among these rows, its features and its targets, float64."""
        size = max(1, NUMBERS_AT_ONCE // self.features)
        for start in range(0, len(self), size):
            place = slice(start, min(start + size, len(self)))
            features, targets = self.read(self.at[place])
            yield place, features.double(), targets.double()


@dataclass(frozen=True, kw_only=True)
class Moments:
    """Of N rows of features: their mean and deviation [F], and the targets' mean [D], float64."""

    mean: Tensor
    deviation: Tensor
    target: Tensor


def moments_of(rows: Rows) -> Moments:
    """Return the mean and deviation of some rows; ValueError if there are none."""
    if not len(rows):
        raise ValueError("there is no row")
    # About a first guess: the square of a large mean would hide a small deviation.
    _, features, targets = next(rows.blocks())
    guess, target = features.mean(dim=0), torch.zeros_like(targets[0])
    first, squares = torch.zeros_like(guess), torch.zeros_like(guess)
    for _, features, targets in rows.blocks():
        apart = features - guess
        first, squares = first + apart.sum(dim=0), squares + apart.square().sum(dim=0)
        target = target + targets.sum(dim=0)
    shift = first / len(rows)
    variance = (squares / len(rows) - shift.square()).clamp(min=0)
    return Moments(mean=guess + shift, deviation=variance.sqrt(), target=target / len(rows))


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """``weight`` [D, F] and ``bias`` [D], float64: features X give X weight' + bias."""

    weight: Tensor
    bias: Tensor

    def __call__(self, features: Tensor) -> Tensor:
        """Return float64 [B, D] of features [B, F]."""
        return features.double() @ self.weight.T + self.bias


@dataclass(frozen=True, kw_only=True)
class Ridge:
    """The decomposition that gives the head of every lambda; see :func:`fit`."""

    rows: Rows
    moments: Moments
    values: Tensor
    vectors: Tensor
    turned: Tensor
    mean_square: float
    dual: bool

    def head(self, ridge: float) -> LinearHead:
        """Return the head of one lambda; its bias gives the mean target for the mean row."""
        shrunk = self.turned / (self.values + ridge * len(self.rows) * self.mean_square)[:, None]
        weight = self.vectors @ shrunk
        if self.dual:
            by_row, weight = weight, torch.zeros(self.rows.features, weight.shape[1], dtype=torch.float64)
            for place, features, _ in self.rows.blocks():
                weight += (features - self.moments.mean).T @ by_row[place]
        return LinearHead(weight=weight.T, bias=self.moments.target - self.moments.mean @ weight)


def fit(rows: Rows) -> Ridge:
    """Decompose what :meth:`Ridge.head` takes; ValueError if no row differs from another."""
    moments = moments_of(rows)
    dual = len(rows) < rows.features
    gram, right = _dual(rows, moments) if dual else _primal(rows, moments)
    mean_square = float(gram.diagonal().sum()) / (len(rows) * rows.features)
    if not mean_square > 0:
        raise ValueError("all rows of features are the same")
    values, vectors = torch.linalg.eigh(gram)
    return Ridge(
        rows=rows,
        moments=moments,
        values=values.clamp(min=0),
        vectors=vectors,
        turned=vectors.T @ right,
        mean_square=mean_square,
        dual=dual,
    )


def _primal(rows: Rows, moments: Moments) -> tuple[Tensor, Tensor]:
    """Return X'X [F, F] and X'V [F, D] of centred rows."""
    size, dim = len(moments.mean), len(moments.target)
    gram, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dim, dtype=torch.float64)
    for _, features, targets in rows.blocks():
        apart = features - moments.mean
        gram.addmm_(apart.T, apart)
        right.addmm_(apart.T, targets - moments.target)
    return gram, right


def _dual(rows: Rows, moments: Moments) -> tuple[Tensor, Tensor]:
    """Return XX' [N, N] and V [N, D] of centred rows."""
    gram = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    right = torch.zeros(len(rows), len(moments.target), dtype=torch.float64)
    for place, features, targets in rows.blocks():
        right[place] = targets - moments.target
        for other, others, _ in rows.blocks():
            if other.start > place.start:
                break
            product = (features - moments.mean) @ (others - moments.mean).T
            gram[place, other], gram[other, place] = product, product.T
    return gram, right


def best_of(
    ridge: Ridge, score: Callable[[LinearHead], float], lambdas: Sequence[float] = LAMBDAS
) -> tuple[float, LinearHead, dict[float, float]]:
    """Return the lambda of the best score, its head, and every lambda's score; of equals the largest."""
    scores: dict[float, float] = {}
    best: tuple[float, float, LinearHead] | None = None
    for one in sorted(lambdas, reverse=True):
        head = ridge.head(one)
        scores[one] = score(head)
        if best is None or scores[one] > best[0]:
            best = scores[one], one, head
    assert best is not None
    return best[1], best[2], dict(sorted(scores.items()))


def mean_cosine(head: LinearHead, rows: Rows) -> float:
    """Return the mean cosine of what a head gives with the targets of some rows."""
    total = 0.0
    for _, features, targets in rows.blocks():
        total += float(torch.cosine_similarity(head(features), targets, dim=1).sum())
    return total / max(1, len(rows))
