"""Augmentation of whole batches on the device, drawn for every image on its own.

(torchvision's transforms draw one crop for a whole batch tensor.) Images come in as uint8
[B, 3, R, R], squashed to R = 256/224 of the student's input size S, and go out as float32 [B, 3, S, S],
normalised with the student's own mean and standard deviation.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from cache.runtime.transfer import to_device
from cache.sources.crop_boxes import crop_boxes
from cache.sources.decoders import PILLOW
from cache.sources.rand_augment import draw_operations, rand_augment
from distill.config import PAPER_CROP
from distill.data.batch import Crops, Share
from distill.data.normalisation import IMAGENET, Normalisation
from distill.data.pixels import SquashedPhoto

POLICIES = ("crop_flip", "flip", "randaugment", "none")


def resize_size(image_size: int, share: float = PAPER_CROP) -> int:
    """Return the side R of which a crop of ``image_size`` is a ``share``: 256 for 224."""
    return round(image_size / share)


def normalise(images: Tensor, by: Normalisation = IMAGENET) -> Tensor:
    """Return pixels 0..255 [B, 3, H, W] as float32, less a mean and divided by a standard deviation."""
    mean, std = _on_device(by, images.device)
    return (images.float() - mean) / std


@lru_cache
def _on_device(by: Normalisation, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return mean and deviation of pixels 0..255; made once, because a GPU waits for the copy."""
    mean, std = torch.tensor(by.mean, device=device), torch.tensor(by.std, device=device)
    return mean.view(1, 3, 1, 1) * 255, std.view(1, 3, 1, 1) * 255


def eval_transform(images: Tensor, size: int, by: Normalisation = IMAGENET) -> Tensor:
    """Return the centre crop of uint8 images [B, 3, R, R], normalised, float32 [B, 3, size, size]."""
    top, left = (round((side - size) / 2) for side in images.shape[-2:])
    return normalise(images[..., top : top + size, left : left + size], by)


@dataclass(frozen=True, kw_only=True)
class TrainAugment:
    """What training images go through.

    ``policy``: ``crop_flip`` is RandomResizedCrop and a horizontal flip, ``randaugment`` is RandAugment(2, 9)
    of the whole square and then RandomResizedCrop without a flip, as the original research code; ``none`` is
    the centre crop of 224/256, ``flip`` that with a horizontal flip.
    ``per_image`` false draws once for the whole batch, as the original research code did. ``decoder`` reads
    the files. Images are judged at ``eval_size`` (0: ``image_size``), which is ``eval_crop`` of the side that
    they are squashed to.
    """

    image_size: int
    eval_size: int = 0
    eval_crop: float = PAPER_CROP
    normalisation: Normalisation = IMAGENET
    policy: str = "crop_flip"
    per_image: bool = True
    scale: tuple[float, float] = (0.08, 1.0)
    decoder: str = PILLOW

    @property
    def decode(self) -> SquashedPhoto:
        """What reads an image file to be trained on."""
        return SquashedPhoto(resize_size(self.image_size), self.decoder)

    @property
    def eval_decode(self) -> SquashedPhoto:
        """What reads an image file to be judged on."""
        return SquashedPhoto(resize_size(self.judged_size, self.eval_crop), self.decoder)

    @property
    def judged_size(self) -> int:
        """The side of the images that the student is judged with, pixels."""
        return self.eval_size or self.image_size

    def plain(self, images: Tensor) -> Tensor:
        """Return images that ``eval_decode`` has read as they are judged."""
        return eval_transform(images, self.judged_size, self.normalisation)

    def __post_init__(self) -> None:
        if self.policy not in POLICIES:
            raise ValueError(f"policy is {self.policy!r}, expected one of {', '.join(POLICIES)}")

    def __call__(
        self,
        images: Tensor,
        generator: Generator,
        share: Share | None = None,
        crops: Crops | None = None,
    ) -> Tensor:
        """Return augmented images; one state of a CPU generator gives the same on every device.

        Where ``images`` are a ``share`` of a batch, they come out as they would in the whole batch.
        With the ``crops`` of the whole batch nothing is drawn: these are replayed, whatever the policy.
        """
        share = share or Share.whole(len(images))
        if crops is not None:
            images = rand_augment(images, crops.operation_OB[:, share.rows], magnitude=crops.magnitude)
            boxes, flips = crops.box_B4[share.rows] * images.shape[-1], crops.flip_B[share.rows]
            return self._normalised(crop(images, boxes, flips, self.image_size))
        if self.policy == "none":
            return self._middle(images)
        draws = share.total if self.per_image else 1
        if self.policy == "flip":
            return self._middle(flipped(images, draws, generator, share))
        if self.policy == "randaugment":
            drawn = draw_operations(draws, generator)
            images = rand_augment(images, drawn.expand(-1, share.total)[:, share.rows])
        boxes = crop_boxes(draws, images.shape[-1], scale=self.scale, generator=generator)
        flips = torch.zeros(draws, dtype=torch.bool)
        if self.policy == "crop_flip":
            flips = torch.rand(draws, generator=generator) < 0.5
        boxes, flips = boxes.expand(share.total, 4)[share.rows], flips.expand(share.total)[share.rows]
        return self._normalised(crop(images, boxes, flips, self.image_size))

    def _normalised(self, images: Tensor) -> Tensor:
        return normalise(images, self.normalisation)

    def _middle(self, images: Tensor) -> Tensor:
        return eval_transform(images, self.image_size, self.normalisation)


def flipped(images: Tensor, draws: int, generator: Generator, share: Share) -> Tensor:
    """Return images [B, X, H, W], half of them mirrored; ``draws`` is one an image, or 1 for all."""
    mirror = (torch.rand(draws, generator=generator) < 0.5).expand(share.total)[share.rows]
    return torch.where(to_device(mirror, images.device)[:, None, None, None], images.flip(-1), images)


def crop(images: Tensor, boxes: Tensor, flips: Tensor, size: int) -> Tensor:
    """Return each image's box, resized to ``size`` (bilinear) and flipped where ``flips``, float32 0..255.

    Boxes [B, 4] are (left, top, width, height) in pixels, which need not be whole.
    """
    side = images.shape[-1]
    left, top, width, height = to_device(boxes, images.device).unbind(dim=1)
    sign = 1.0 - 2.0 * to_device(flips, images.device).float()
    zero = torch.zeros_like(left)
    theta = torch.stack(
        [
            torch.stack([sign * width / side, zero, (2 * left + width) / side - 1], dim=1),
            torch.stack([zero, height / side, (2 * top + height) / side - 1], dim=1),
        ],
        dim=1,
    )
    grid = F.affine_grid(theta, [len(images), 3, size, size], align_corners=False)
    return sampled(images.float(), grid, border=images.device.type != "mps")


def sampled(images: Tensor, grid: Tensor, *, border: bool = True) -> Tensor:
    """Return images [B, 3, R, R] at the places of a grid [B, S, S, 2] (bilinear); the edge goes on outside.

    Without ``border`` the same, to rounding, by places that are moved onto the edge: Apple's GPUs had no
    border in ``grid_sample`` for long.
    """
    mode = "border"
    if not border:
        edge = 1 - 1 / images.shape[-1]
        grid, mode = grid.clamp(-edge, edge), "zeros"
    return F.grid_sample(images, grid, mode="bilinear", padding_mode=mode, align_corners=False)
