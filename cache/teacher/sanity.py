"""Numbers that a teacher cannot have meant: not finite, zero, lost in the dtype, the same for everything.

Each stops stage 1, whether the teacher runs here or its rows come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cache.runtime.errors import UserError, shortened

# So many different pictures with one and the same row are no accident; fewer are judged at the end.
ENOUGH = 8
PRECISION = "use --precision float32 or bfloat16."
# |x - stored x| / |x|: float16's ten bits leave less than half of it, but where numbers are too small for it.
MOST_LOST = 1e-3
# 4,096 rows x 768 x 8 bytes = 25 MB, a few times.
ROWS_AT_ONCE = 4096
WEIGHTS = (
    "check that its weights are this model's and that it was trained on such texts and pictures, "
    "and try --precision float32."
)


def stored(rows: NDArray[Any], dtype: str, name: Callable[[int], str]) -> NDArray[Any]:
    """Return rows [n, D] or [n, V, D] in the dtype that a cache keeps them in.

    Raises
    ------
    UserError
        If one is not finite, all zeros, or loses more in that dtype than :data:`MOST_LOST` of its length:
        ``name(i)`` says what row i is.
    """
    with np.errstate(over="ignore", under="ignore"):  # said below, with what to do
        kept = rows.astype(dtype)
    flat, there = (part.reshape(-1, rows.shape[-1]) for part in (rows, kept))
    for start in range(0, len(flat), ROWS_AT_ONCE):
        block = slice(start, start + ROWS_AT_ONCE)
        for bad, problem, fix in _odd(flat[block], there[block]):
            if bad.any():
                row = (start + int(bad.argmax())) * len(rows) // len(flat)
                raise UserError(f"{name(row)} {problem}", fix=fix)
    return kept


def _odd(rows_ND: NDArray[Any], kept_ND: NDArray[Any]) -> list[tuple[NDArray[np.bool_], str, str]]:
    """Return what may be wrong with rows and as they are kept: which are, in words, and what to do."""
    largest, dtype = np.abs(rows_ND).max(axis=1), kept_ND.dtype
    wider = "" if dtype == np.float32 else f"use --dtype float32, which holds what {dtype} does not, or "
    narrow = f"{wider}scale all rows alike."
    lost = lost_share(rows_ND, kept_ND)
    worst = float(lost[np.isfinite(lost)].max(initial=0))
    return [
        (~np.isfinite(largest), "is not finite", "embed it again."),
        (largest == 0, "is all zeros", "embed it again, or leave it out."),
        (~np.isfinite(kept_ND).all(axis=1), f"is too large for {dtype}", narrow),
        (lost > MOST_LOST, f"is too small for {dtype}, which loses {worst:.1%} of a row", narrow),
    ]


def lost_share(rows_ND: NDArray[Any], kept_ND: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``|x - kept x| / |x|`` of every row x, [N]; not finite where a row is zero or not finite."""
    # In float64: the square of a very small number is zero in float32.
    with np.errstate(invalid="ignore", over="ignore", divide="ignore"):
        rows = rows_ND.astype(np.float64)
        away = rows - kept_ND
        squares = [np.einsum("nd,nd->n", part, part) for part in (away, rows)]
        return np.asarray(np.sqrt(squares[0] / squares[1]))


def check_finite(rows: Tensor, names: Sequence[str]) -> None:
    """Make sure that all numbers [n, ...] are finite; the UserError names the first row that is not."""
    finite = torch.isfinite(rows).flatten(1).all(dim=1)
    if not finite.all():
        name = names[int((~finite).nonzero()[0])]
        raise UserError(f"the teacher gave numbers that are not finite for {name}", fix=PRECISION)


def check_texts(rows: Tensor, texts: Sequence[str]) -> None:
    """Make sure that the embeddings [T, D] of texts are finite, not zero, and not the same for all."""
    check_finite(rows, [f"the text {text!r:.80}" for text in texts])
    other = next((i for i, text in enumerate(texts) if text != texts[0]), None)
    if other is not None and bool((rows == rows[0]).all()):
        raise UserError(
            f"the teacher says the same of different texts ({texts[0]!r:.60} and {texts[other]!r:.60})",
            fix=WEIGHTS,
        )
    stored(rows.numpy(), "float32", lambda i: f"the teacher's row of the text {shortened(texts[i])}")


class SameForAll:
    """Notices a teacher that says the same of different pictures, or nothing of one.

    Pictures are different when their pixels are: a data set may hold one picture many times.
    """

    def __init__(self) -> None:
        self._pixels: Tensor | None = None
        self._row: Tensor | None = None
        self._name = self._other = ""
        self._count, self._varies = 0, False

    @property
    def varies(self) -> bool:
        """Whether it has said something else of another picture, and so is a teacher."""
        return self._varies

    def differ(self, pixels: Tensor) -> Tensor | None:
        """Return which of the pictures [B, ...] differ from the very first; None when it does not matter."""
        if self._varies:
            return None
        if self._pixels is None:
            self._pixels = pixels[0].clone()
        return (pixels != self._pixels).flatten(1).any(dim=1)

    def look(self, rows: Tensor, differ: Tensor | None, names: Sequence[str]) -> None:
        """Look at the embeddings [B, D] of pictures.

        Raises
        ------
        UserError
            If one is a constant, or all so far are equal though their pictures are not.
        """
        flat = (rows == rows[:, :1]).all(dim=1)
        if rows.shape[1] > 1 and flat.any():
            name = names[int(flat.nonzero()[0])]
            raise UserError(f"the teacher gave {rows.shape[1]} equal numbers for {name}", fix=WEIGHTS)
        if self._varies or differ is None:
            return
        if self._row is None:
            self._row, self._name = rows[0].clone(), names[0]
        self._varies = bool((rows != self._row).any())
        self._count += int(differ.sum())
        if differ.any():
            self._other = names[int(differ.nonzero()[0])]
        if self._count >= ENOUGH:
            self.end()

    def end(self) -> None:
        """Judge what was seen; raises as :meth:`look`."""
        if self._count and not self._varies:
            raise UserError(
                f"the teacher says the same of different images ({self._name} and {self._other})", fix=WEIGHTS
            )
