"""Preprocessing as a part of the graph: a photo of any size in, what the student takes out.

Written in plain arithmetic instead of ONNX's Resize, because runtimes differ in that: OpenVINO 2026.4 leaves
its antialiasing out, which makes another picture of a photo.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.deploy.info import Preprocessing


class PreparedPhoto(nn.Module):
    """Photos uint8 [B, H, W, 3] -> float32 [B, 3, S, S], by :class:`distill.deploy.info.Preprocessing`.

    The squash is Pillow's bilinear one (a triangle as wide as the scale): across, then down, to whole numbers
    after each. What the crop cuts off is never computed.
    """

    kept: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, steps: Preprocessing) -> None:
        super().__init__()
        self.resize = steps.resize
        first = round((steps.resize - steps.crop) / 2)
        self.kept = nn.Buffer(torch.arange(first, first + steps.crop))
        self.mean, self.std = (
            nn.Buffer(torch.tensor(values).view(1, 3, 1, 1) * 255) for values in (steps.mean, steps.std)
        )

    def weights(self, side: int) -> Tensor:
        """Return what every pixel of a side counts for every pixel that is kept, [S, side], rows of sum 1.

        weight(i, j) = max(0, 1 - |(j + 1/2) - (i + 1/2) side / R| / max(side / R, 1)) before that, times
        2 max(side, R): whole numbers, so that a runtime which computes in 16 bits gets them right too.
        """
        pixels = (2 * torch.arange(side) + 1) * self.resize
        away = (pixels[None] - (2 * self.kept[:, None] + 1) * side).abs()
        counts = (-away + 2 * torch.sym_max(side, self.resize)).clamp(min=0)
        return counts.float() / counts.sum(dim=1, keepdim=True).float()

    def forward(self, image: Tensor) -> Tensor:
        """Return prepared photos."""
        planes = image.permute(0, 3, 1, 2).float()
        narrow = torch.floor(planes @ self.weights(planes.shape[3]).T + 0.5)
        small = torch.floor(self.weights(planes.shape[2]) @ narrow + 0.5)
        return (small - self.mean) / self.std
