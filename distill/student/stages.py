"""A head that reads every stage of a trunk: mean and deviation of each map's channels over all positions.

Early stages carry fine-grained differences that the last map has thrown away; Head2Toe (Evci et al., arXiv
2201.03529) does the like for transfer. Each number is standardised over the training images, each stage
divided by the root of its width, so that all count alike; a linear layer or one of a hidden layer follows.
For use the standardisation is folded into the first layer: :meth:`StagesStudent.folded`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from cache.runtime.devices import in_float64
from cache.runtime.errors import UserError
from distill.config import HEADS
from distill.student.build import made_of
from distill.student.stage_maps import StageMaps, maps_of

# Of a variance: the root of nothing has no gradient.
LEAST_VARIANCE = 1e-8
# Of a deviation over the training images, as a share of the number's mean and of its stage's deviations: less
# is what rounding makes of a number that is the same for all of them, and another image may have another.
LEAST_DEVIATION = 1e-2
LINEAR, _, MLP = HEADS


class Standardise(nn.Module):
    """Features [B, F] less their ``mean``, divided by ``scale``: deviation times the root of a stage's width.

    While training, gaussian ``noise`` is added, in units of the features' deviation.
    """

    mean: Tensor
    scale: Tensor
    unit: Tensor

    def __init__(self, widths: Sequence[int], *, noise: float = 0.0) -> None:
        """``widths`` are how many features belong together, which are divided by the root of that."""
        super().__init__()
        self.noise, self.widths = noise, tuple(widths)
        unit = torch.cat([torch.full((width,), width**-0.5) for width in widths])
        self.register_buffer("mean", torch.zeros_like(unit))
        self.register_buffer("scale", 1 / unit)
        self.register_buffer("unit", unit, persistent=False)

    @torch.no_grad()
    def fit(self, mean: Tensor, deviation: Tensor) -> None:
        """Take the features' mean and deviation [F] over the training images."""
        self.mean.copy_(mean)
        of_stage = [part.mean().expand(len(part)) for part in deviation.split(self.widths)]
        least = LEAST_DEVIATION * torch.maximum(mean.abs(), torch.cat(of_stage)) + LEAST_VARIANCE
        self.scale.copy_(torch.maximum(deviation, least).to(self.unit) / self.unit)

    def folded_into(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Return a linear layer's weight [D, F] and bias [D], float64, for features as they are."""
        plain = in_float64(weight) / in_float64(self.scale)
        return plain, in_float64(bias) - plain @ in_float64(self.mean)

    def forward(self, features: Tensor) -> Tensor:
        """Return features [B, F] as the head takes them."""
        rows = (features - self.mean) / self.scale
        if self.training and self.noise:
            rows = rows + self.noise * self.unit * torch.randn_like(rows)
        return rows


class StagesStudent(nn.Module):
    """Images [B, 3, S, S] -> embeddings [B, D]: a trunk, its features standardised, a head on them."""

    def __init__(self, maps: StageMaps, embed_dim: int, *, hidden: int = 0, noise: float = 0.0) -> None:
        """``hidden`` is the width of a hidden layer, 0 for none."""
        super().__init__()
        self.trunk, self._taken = maps.trunk, maps.taken
        self.positions, self.widths = maps.positions, maps.widths
        self.standard: nn.Module = Standardise([w for w in self.widths for _ in range(2)], noise=noise)
        numbers = 2 * sum(self.widths)
        self.head: nn.Module = (
            nn.Sequential(nn.Linear(numbers, hidden), nn.GELU(), nn.Linear(hidden, embed_dim))
            if hidden
            else nn.Linear(numbers, embed_dim)
        )

    def get_classifier(self) -> nn.Module:
        """Return the head, as timm's models do."""
        return self.head

    def features(self, images: Tensor) -> Tensor:
        """Return the means, then the deviations of every stage's channels, float32 [B, F]."""
        numbers = []
        maps = self._taken(self.trunk, images)
        for stage, positions in zip(maps, self.positions, strict=True):
            values = stage.float()
            mean = values.mean(dim=positions, keepdim=True)
            variance = (values - mean).square().mean(dim=positions)
            # Not added: what simplifies graphs takes so little for nothing.
            numbers += [mean.flatten(1), variance.clamp(min=LEAST_VARIANCE).sqrt()]
        return torch.cat(numbers, dim=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return embeddings."""
        return self.embed(self.features(images))

    def embed(self, features: Tensor) -> Tensor:
        """Return the embeddings of features, in float32: their differences are small beside their values."""
        kind = features.device.type
        off = torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()
        with off:
            embeddings: Tensor = self.head(self.standard(features))
        return embeddings

    @torch.no_grad()
    def folded(self) -> StagesStudent:
        """Return a student of the same trunk that gives the same; the standardisation is in its head."""
        student, standard = copy.copy(self), self.standard
        # The trunk is shared: a copy of what torch.fx made knows one of its two modes alone.
        student._modules = dict(self._modules)
        student.head, student.standard = copy.deepcopy(self.head), nn.Identity()
        first: Any = student.head[0] if isinstance(student.head, nn.Sequential) else student.head
        if isinstance(standard, Standardise):
            weight, bias = standard.folded_into(first.weight, first.bias)
            first.weight.copy_(weight)
            first.bias.copy_(bias)
        return student


def with_head(
    student: nn.Module,
    *,
    kind: str,
    embed_dim: int,
    image_size: int,
    hidden: int = 0,
    noise: float = 0.0,
    arch: str = "",
) -> nn.Module:
    """Return a student of :func:`distill.student.build.build_student` with a head of a ``kind``.

    ``linear`` is its own last layer. UserError if the student gives no maps of its stages.
    """
    if kind == LINEAR:
        return student
    maps = maps_of(student, image_size)
    if maps is None:
        raise UserError(
            f"{arch or type(student).__name__} gives no maps of its stages, which student.head={kind} reads",
            fix="set student.head=linear, or choose another --arch.",
        )
    staged = StagesStudent(maps, embed_dim, hidden=hidden if kind == MLP else 0, noise=noise)
    staged.made = made_of(student)  # type: ignore[assignment]
    return staged
