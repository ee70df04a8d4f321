"""Everything random in a step is a function of seed, epoch and step, so that resuming changes nothing."""

from __future__ import annotations

import numpy as np
import torch
from torch import Generator

from cache.runtime.distributed import current_ranks


def stream_generator(seed: int, epoch: int, step: int) -> Generator:
    """Return what a step's augmentation is drawn from."""
    return torch.Generator().manual_seed(_seeds(seed, epoch, step)[0])


def model_seed(seed: int, epoch: int, step: int) -> int:
    """Return the seed of what a student itself draws in a step, such as dropout; each process its own."""
    return _seeds(seed, epoch, step)[1] + current_ranks().rank


def _seeds(seed: int, epoch: int, step: int) -> tuple[int, int]:
    first, second = np.random.SeedSequence([seed, epoch, step]).generate_state(2)
    return int(first), int(second)
