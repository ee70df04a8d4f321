"""Mixup: an image is seen through another one of its batch, and its losses are those of both images' targets.

As in mixup (Zhang et al., arXiv 1710.09412), also of what has no classes: i-Mix (Lee et al., arXiv
2010.08887) weights a contrastive loss's two targets so. Of L-mse it is the mix of both unit rows, which is
nearest to both; every other loss sees two rows of the teacher, not one that it never gave. Of a head on
features these are mixed (manifold mixup, arXiv 1806.05236). (torchvision's and timm's mix labels alone, and
draw from generators that no step knows.)
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from cache.runtime.transfer import to_device
from distill.config import RunConfig
from distill.data.batch import Mix, own_share
from distill.train.distributed import gather_rows

# What is drawn here is none of a step's other draws.
OF_MIXUP = 1


def drawn_mix(config: RunConfig, epoch: int, step: int, total: int, device: torch.device) -> Mix | None:
    """Return what the images of a step's batch of ``total`` are mixed with; None with mixup off.

    One share for the batch, as the paper's code has it, of Beta(alpha, alpha); it is 1/2 at least: an image
    is the smaller part as often as the larger one, which its label is of. The stream's seed draws it.
    """
    alpha = config.data.mixup
    if not alpha:
        return None
    draw = np.random.default_rng([config.stream_seed, epoch, step, OF_MIXUP])
    share = float(draw.beta(alpha, alpha))
    other = torch.from_numpy(draw.permutation(total))
    return Mix(share=max(share, 1 - share), other_B=to_device(other, device))


def mixed_images(images: Tensor, mix: Mix | None) -> Tensor:
    """Return this process's share of a batch's images [b, ...], each mixed with one of the whole batch."""
    if mix is None:
        return images
    total = len(mix.other_B)
    others = gather_rows(images, total)[mix.other_B[own_share(total).rows]]
    return torch.lerp(others, images, mix.share)
