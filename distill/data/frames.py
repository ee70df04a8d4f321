"""An episode as channels: every camera's RGB and, where it has one, its depth, in the order of its keys.

``with_depth`` says of every camera whether it has depth: (True, True), the research code's base and hand
camera, are eight channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Generator, Tensor

from cache.sources.episodes import EpisodeSample
from distill.data.augment import flipped
from distill.data.batch import Crops, Share
from distill.data.normalisation import IMAGENET, Normalisation

BASE_AND_HAND = (True, True)


def channels_of(with_depth: Sequence[bool]) -> int:
    """Return how many channels cameras with depth, or without, are."""
    return sum(4 if depth else 3 for depth in with_depth)


@dataclass(frozen=True)
class EpisodeFrames:
    """The cameras of an episode at ``side`` x ``side`` (bicubic), float32 [C, side, side].

    RGB is in 0..1 before resizing, which overshoots a little, as the original code's does; depth is in the
    episode's own unit.
    """

    side: int
    with_depth: tuple[bool, ...] = BASE_AND_HAND
    dtype = torch.float32

    @property
    def shape(self) -> tuple[int, ...]:
        """[C, side, side]."""
        return (channels_of(self.with_depth), self.side, self.side)

    def __call__(self, sample: EpisodeSample) -> Tensor:
        """Read one episode."""
        pictures: list[NDArray[Any]] = []
        for frame in sample.frames().values():
            pictures += [frame.rgb / 255] if frame.depth is None else [frame.rgb / 255, frame.depth]
        return torch.cat([self._resized(picture) for picture in pictures])

    def _resized(self, picture: NDArray[Any]) -> Tensor:
        channels_first = torch.from_numpy(picture).float().permute(2, 0, 1)[None]
        if channels_first.shape[-2:] == (self.side, self.side):
            return channels_first[0]
        size = (self.side, self.side)
        return F.interpolate(channels_first, size=size, mode="bicubic", align_corners=False)[0]


def mean_and_deviation(
    with_depth: Sequence[bool], by: Normalisation = IMAGENET
) -> tuple[list[float], list[float]]:
    """Return what is taken off every channel, and what it is divided by: the student's on RGB."""
    mean = [value for depth in with_depth for value in (*by.mean, *([0.0] * depth))]
    return mean, [value for depth in with_depth for value in (*by.std, *([1.0] * depth))]


def normalise_frames(
    frames_BCSS: Tensor, with_depth: tuple[bool, ...] = BASE_AND_HAND, by: Normalisation = IMAGENET
) -> Tensor:
    """Return frames with a mean and standard deviation on every RGB picture; depth as it is."""
    mean, std = _mean_and_deviation_on(frames_BCSS.device, with_depth, by)
    return (frames_BCSS - mean) / std


@lru_cache
def _mean_and_deviation_on(
    device: torch.device, with_depth: tuple[bool, ...], by: Normalisation
) -> tuple[Tensor, Tensor]:
    """Return both as tensors [C, 1, 1]; made once, because a GPU waits for the copy."""
    mean, std = (torch.tensor(one, device=device) for one in mean_and_deviation(with_depth, by))
    return mean[:, None, None], std[:, None, None]


@dataclass(frozen=True, kw_only=True)
class FrameAugment:
    """What training frames go through: ``flip`` mirrors all cameras of an episode, ``none`` does not."""

    image_size: int = 224
    policy: str = "flip"
    per_image: bool = True
    with_depth: tuple[bool, ...] = BASE_AND_HAND
    normalisation: Normalisation = IMAGENET

    @property
    def decode(self) -> EpisodeFrames:
        """What reads an episode."""
        return EpisodeFrames(self.image_size, self.with_depth)

    @property
    def eval_decode(self) -> EpisodeFrames:
        """What reads an episode to be judged on: the same."""
        return self.decode

    def plain(self, frames: Tensor) -> Tensor:
        """Return frames as they are judged."""
        return normalise_frames(frames, self.with_depth, self.normalisation)

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
        return normalise_frames(frames, self.with_depth, self.normalisation)
