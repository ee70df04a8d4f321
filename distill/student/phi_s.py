"""PHI-S: rows of a teacher standardised by one scalar (Ranzinger et al. 2024, arXiv 2410.01680).

A teacher's rows less their mean are turned into the basis of their principal components, and from there by a
Hadamard matrix so that every dimension has the same variance: one scalar then makes it 1 in all of them. A
rotation and a scalar keep angles and ratios of distances, so that a squared distance between standardised
rows is ``scale ** 2`` times the plain one, wherever it points. A loss of squared distances therefore needs
nothing of the map but :func:`scale_of`, and the student's rows stay in the teacher's own space: what
standardising brings is that of several teachers none weighs more for the size of its rows.
"""

from __future__ import annotations

from torch import Tensor

# A deviation of which no scale is made: all rows are one.
LEAST_VARIANCE = 1e-12


def scale_of(rows: Tensor) -> float:
    """Return the scalar of rows [N, D]: one over the root of the mean of their dimensions' variances.

    ValueError where no row differs from another.
    """
    variance = float(rows.double().var(dim=0, correction=0).mean())
    if not variance > LEAST_VARIANCE:
        raise ValueError("all rows are the same")
    return variance**-0.5
