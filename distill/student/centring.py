"""A student of the teacher's centred space: rows and texts less their means over what is trained on.

A teacher's rows share a large mean, and its texts another; what tells images apart is what is left. The means
are kept with the student, because whoever asks it needs those of its texts.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Rows that a mean is taken of at most: its error is then 1/256 of a row's deviation.
MEAN_ROWS = 65_536


class Centre(nn.Module):
    """The means of a teacher's unit rows, of images and of class texts, [D] float32 each."""

    image: Tensor
    text: Tensor

    def __init__(self, embed_dim: int) -> None:
        """Make one whose means are zero, until they are set or loaded."""
        super().__init__()
        self.register_buffer("image", torch.zeros(embed_dim))
        self.register_buffer("text", torch.zeros(embed_dim))

    def set_means(self, images: Tensor, texts: Tensor) -> None:
        """Take the means of raw rows [N, D] of images and [C, D] of texts."""
        self.image.copy_(F.normalize(images.float(), dim=1).mean(dim=0))
        self.text.copy_(F.normalize(texts.float(), dim=1).mean(dim=0))

    def images(self, rows: Tensor) -> Tensor:
        """Return raw rows of images [..., D] in the centred space, float32."""
        return F.normalize(rows.float(), dim=-1) - self.image.to(rows.device)

    def texts(self, rows: Tensor) -> Tensor:
        """Return raw rows of texts [..., D] in the centred space, float32."""
        return F.normalize(rows.float(), dim=-1) - self.text.to(rows.device)


@dataclass(kw_only=True)
class Bank:
    """Unit rows of the teacher [Q, D] in the student's space, which im_cst takes as further negatives."""

    rows: Tensor | None = None
