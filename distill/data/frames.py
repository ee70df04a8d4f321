"""An episode as eight channels: base RGB, base depth, hand RGB, hand depth, in this order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from cache.sources.episodes import EpisodeRecord
from distill.data.augment import IMAGENET_MEAN, IMAGENET_STD, flipped
from distill.data.batch import Crops, Share

CHANNELS = 8


@dataclass(frozen=True)
class EpisodeFrames:
    """Both cameras of an episode at ``side`` x ``side`` (bicubic), float32 [8, side, side].

    RGB is in 0..1 before resizing, which overshoots a little, as the original code's does; depth is in the
    episode's own unit.
    """

    side: int
    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """[8, side, side]."""
        return (CHANNELS, self.side, self.side)

    def __call__(self, record: EpisodeRecord) -> Tensor:
        """Read one episode."""
        frames = record.frames()
        parts = (frames.base_rgb / 255, frames.base_depth, frames.hand_rgb / 255, frames.hand_depth)
        return torch.cat([self._resized(part) for part in parts])

    def _resized(self, picture: NDArray[Any]) -> Tensor:
        channels_first = torch.from_numpy(picture).float().permute(2, 0, 1)[None]
        if channels_first.shape[-2:] == (self.side, self.side):
            return channels_first[0]
        size = (self.side, self.side)
        return F.interpolate(channels_first, size=size, mode="bicubic", align_corners=False)[0]


def normalise_frames(frames_B8SS: Tensor) -> Tensor:
    """Return frames with ImageNet's mean and standard deviation on both RGB pictures; depth as it is."""
    mean = torch.tensor([*IMAGENET_MEAN, 0.0] * 2, device=frames_B8SS.device)
    std = torch.tensor([*IMAGENET_STD, 1.0] * 2, device=frames_B8SS.device)
    return (frames_B8SS - mean[:, None, None]) / std[:, None, None]


@dataclass(frozen=True, kw_only=True)
class FrameAugment:
    """What training frames go through: ``flip`` mirrors both cameras of an episode, ``none`` does not."""

    image_size: int = 224
    policy: str = "flip"
    per_image: bool = True

    @property
    def decode(self) -> EpisodeFrames:
        """What reads an episode."""
        return EpisodeFrames(self.image_size)

    def plain(self, frames: Tensor) -> Tensor:
        """Return frames as they are judged."""
        return normalise_frames(frames)

    def __call__(
        self,
        frames: Tensor,
        generator: Generator,
        share: Share | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        """Return augmented, normalised frames; drawn from a CPU generator, the same on every device."""
        assert crops is None  # of episodes none are kept
        share = share or Share.whole(len(frames))
        if self.policy == "flip":
            frames = flipped(frames, share.total if self.per_image else 1, generator, share)
        return normalise_frames(frames)
