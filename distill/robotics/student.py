"""The robotics student: any image model with a wider first convolution, two heads and a score bias."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cache.runtime.errors import UserError, reason_of
from distill.config import SCRATCH
from distill.data.frames import BASE_AND_HAND, channels_of
from distill.student.build import NEW, Made, Origin, build_student, made_of, probed
from distill.student.names import family
from distill.student.parts import head_of

RGB = 3
# Pixels a side at which every CNN has a last feature map of several locations.
PROBE_SIZE = 224


@dataclass(frozen=True)
class _Tap:
    """Where a backbone's last feature map is: what comes out of a module, or (``pooled``) what goes in."""

    module: nn.Module
    pooled: bool
    channels: int


class EpisodeStudent(nn.Module):
    """Frames [B, C, S, S] -> (global embeddings [B, D], embeddings of locations [B, L, D] or None).

    Locations are those of the backbone's last feature map, each projected by a 1x1 convolution.
    ``score_bias`` is the learnt b; scores have tanh(b) added.
    """

    made: Made

    def __init__(self, backbone: nn.Module, *, embed_dim: int, tap: _Tap | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.score_bias = nn.Parameter(torch.zeros(()))
        self.projection: nn.Conv2d | None = None
        self._map: Tensor | None = None
        if tap is not None:
            tap.module.register_forward_hook(self._keep_input if tap.pooled else self._keep_output)
            self.projection = nn.Conv2d(tap.channels, embed_dim, kernel_size=1)

    def get_classifier(self) -> nn.Module:
        """Return what is no trunk: the layers that give embeddings, and the bias. The name is timm's."""
        layers = [head_of(self.backbone), *([self.projection] if self.projection is not None else [])]
        return nn.ModuleList([*layers, nn.ParameterList([self.score_bias])])

    def _keep_input(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        del module, output
        self._map = given[0]

    def _keep_output(self, module: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        del module, given
        self._map = output

    def forward(self, frames_BCSS: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return both heads' outputs."""
        embeddings = self.backbone(frames_BCSS)
        if self.projection is None:
            return embeddings, None
        assert self._map is not None
        located, self._map = self.projection(self._map), None
        return embeddings, located.flatten(2).transpose(1, 2)


def build_episode_student(
    arch: str,
    *,
    embed_dim: int,
    start: str = SCRATCH,
    kwargs: Sequence[str] = (),
    image_size: int = 224,
    origin: Origin = NEW,
    local: bool = False,
    with_depth: Sequence[bool] = BASE_AND_HAND,
) -> EpisodeStudent:
    """Return a new student; see :func:`distill.student.build.build_student`.

    ``with_depth`` says of every camera of its frames whether it has depth. UserError as there; if the first
    convolution cannot be widened, or ``local`` is asked of a model without a feature map.
    """
    backbone = build_student(
        arch, embed_dim=embed_dim, start=start, kwargs=kwargs, image_size=image_size, origin=origin
    )
    widen_stem(backbone, arch, with_depth, keep=start != SCRATCH)
    channels = channels_of(with_depth)
    _check(backbone, arch, channels, image_size)
    tap = _last_map(backbone, arch, channels, image_size) if local else None
    student = EpisodeStudent(backbone, embed_dim=embed_dim, tap=tap)
    student.made = made_of(backbone)
    return student


def widen_stem(backbone: nn.Module, arch: str, with_depth: Sequence[bool], *, keep: bool) -> None:
    """Make the first convolution take every camera's channels instead of three.

    With ``keep`` its weights go on: every camera's RGB shares them, depth gets their mean over the channels,
    and all are divided by the number of cameras, because they add up. Without, they are drawn anew. One
    camera without depth is a photo: nothing changes. UserError if the first convolution is not one over three
    channels.
    """
    channels = channels_of(with_depth)
    if channels == RGB:
        return
    stem = next((part for part in backbone.modules() if isinstance(part, nn.Conv2d)), None)
    if stem is None or stem.in_channels != RGB or stem.groups != 1:
        raise UserError(
            f"{arch} has no first convolution over the picture that could take {channels} channels",
            fix="choose another student, such as efficientnet_b0 or resnet18.",
        )
    wide = nn.Conv2d(
        channels,
        stem.out_channels,
        kernel_size=stem.kernel_size,  # type: ignore[arg-type]
        stride=stem.stride,  # type: ignore[arg-type]
        padding=stem.padding,  # type: ignore[arg-type]
        dilation=stem.dilation,  # type: ignore[arg-type]
        bias=stem.bias is not None,
        padding_mode=stem.padding_mode,
    )
    if keep:
        depth = stem.weight.detach().mean(dim=1, keepdim=True)
        rgb = stem.weight.detach()
        seen = [part for has_depth in with_depth for part in ((rgb, depth) if has_depth else (rgb,))]
        wide.weight.data.copy_(torch.cat(seen, dim=1) / len(with_depth))
        if stem.bias is not None and wide.bias is not None:
            wide.bias.data.copy_(stem.bias.detach())
    # A subclass (timm pads some of its own) keeps its class and forward; only the weights change.
    stem.in_channels, stem.weight, stem.bias = channels, wide.weight, wide.bias


def _check(backbone: nn.Module, arch: str, channels: int, image_size: int) -> None:
    try:
        probed(backbone, channels, image_size)
    except (RuntimeError, AssertionError, ValueError, IndexError) as error:
        raise UserError(
            f"{arch} cannot take {channels} channels ({reason_of(error)})",
            fix="choose another student, such as efficientnet_b0 or resnet18.",
        ) from error


def _last_map(backbone: nn.Module, arch: str, channels: int, image_size: int) -> _Tap:
    """Return the last module in a forward pass that sees a map of several locations."""
    seen: list[_Tap] = []

    def note(module: nn.Module, given: tuple[Any, ...], output: Any) -> None:
        for pooled, feature_map in enumerate((output, given[0] if given else None)):
            if isinstance(feature_map, Tensor) and feature_map.dim() == 4 and min(feature_map.shape[-2:]) > 1:
                seen.append(_Tap(module, bool(pooled), feature_map.shape[1]))
                return

    leaves = [module for module in backbone.modules() if not list(module.children())]
    hooks = [leaf.register_forward_hook(note) for leaf in leaves]
    try:
        probed(backbone, channels, max(image_size, PROBE_SIZE))
    finally:
        for hook in hooks:
            hook.remove()
    if family(arch) == "vit" or not seen:
        raise UserError(
            f"{arch} has no feature map to aggregate over", fix="set robotics.local=false, or choose a CNN."
        )
    return seen[-1]
