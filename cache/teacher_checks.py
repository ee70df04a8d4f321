"""Numbers that a teacher cannot have meant: not finite, or the same for everything. Both stop stage 1."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from cache.errors import UserError

# So many different pictures with one and the same row are no accident; fewer are judged at the end.
ENOUGH = 8
PRECISION = "use --precision float32 or bfloat16."
WEIGHTS = "check that --pretrained are this model's weights, and try --precision float32."


def check_finite(rows: Tensor, names: Sequence[str]) -> None:
    """Make sure that all numbers [n, ...] are finite; the UserError names the first row that is not."""
    finite = torch.isfinite(rows).flatten(1).all(dim=1)
    if not finite.all():
        name = names[int((~finite).nonzero()[0])]
        raise UserError(f"the teacher gave numbers that are not finite for {name}", fix=PRECISION)


def check_texts(rows: Tensor, texts: Sequence[str]) -> None:
    """Make sure that the embeddings [T, D] of texts are finite, and not the same for different texts."""
    check_finite(rows, [f"the text {text!r:.80}" for text in texts])
    other = next((i for i, text in enumerate(texts) if text != texts[0]), None)
    if other is not None and bool((rows == rows[0]).all()):
        raise UserError(
            f"the teacher says the same of different texts ({texts[0]!r:.60} and {texts[other]!r:.60})",
            fix=WEIGHTS,
        )


class SameForAll:
    """Notices a teacher that says the same of different pictures, or nothing of one.

    Pictures are different when their pixels are: a data set may hold one picture many times.
    """

    def __init__(self) -> None:
        self._pixels: Tensor | None = None
        self._row: Tensor | None = None
        self._name = self._other = ""
        self._count, self._varies = 0, False

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
