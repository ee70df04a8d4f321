"""Where a run takes its images from: the cache's own pixels, else their files; kept where they fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from cache import EmbeddingCache
from cache.runtime.amounts import in_bytes
from cache.runtime.devices import choose_device, default_workers
from cache.runtime.errors import UserError
from cache.runtime.machine_limits import memory_here, workers_here
from cache.sources.samples import Sample
from distill.config_data import DataConfig
from distill.data.pixels import Decode, Pixels, StoredImages, image_bytes

MB = 2**20
# What decoded images may take of a GPU's free memory; the rest is the student's.
DEVICE_SHARE = 0.5


@dataclass(kw_only=True)
class PixelMaker:
    """Makes the :class:`Pixels` of one split after the other, from one budget of memory.

    ``decode`` reads an image, where no other is given for a split; ``device`` is where all images are kept,
    None where they are not.
    """

    config: DataConfig
    cache: EmbeddingCache
    decode: Decode
    device: torch.device | None = None
    budget: int = field(init=False)

    def __post_init__(self) -> None:
        self.budget = memory_here(self.config.memory_mb * MB)

    def __call__(
        self,
        parts: Sequence[tuple[str, Sequence[Sample]]],
        *,
        strict: bool = False,
        decode: Decode | None = None,
    ) -> Pixels:
        """Return the images of some samples of each split, which are rows of it if they have rows."""
        stored, decode = None, decode or self.decode
        if self.config.pixels == "auto":
            stored = StoredImages.find(self.cache, parts, decode.shape[-1])
        samples = parts[0][1] if len(parts) == 1 else tuple(one for _, part in parts for one in part)
        pixels = Pixels(
            samples,
            decode,
            memory=self.budget,
            workers=decoding_workers(self.config),
            strict=strict,
            stored=stored,
            device=self.device,
        )
        self.budget -= pixels.kept_bytes
        return pixels


def decoding_workers(config: DataConfig) -> int:
    """Return how many processes decode: as the config says and this machine can, or by the machine."""
    return default_workers(choose_device("auto")) if config.workers < 0 else workers_here(config.workers)


def device_for_images(wanted: str, device: torch.device, counts: Mapping[Any, int]) -> torch.device | None:
    """Return the device if decoded images are kept there, as ``data.device_images`` wants; or None.

    ``counts`` says how many images of each :class:`Decode` there are. UserError if they are to be kept on a
    GPU that has not the memory.
    """
    if wanted == "off" or (wanted == "auto" and device.type != "cuda"):
        return None
    if device.type != "cuda":
        return device
    needed = sum(image_bytes(decode, count) for decode, count in counts.items())
    free, _ = torch.cuda.mem_get_info(device)
    if needed <= DEVICE_SHARE * free:
        return device
    if wanted == "auto":
        return None
    raise UserError(
        f"data.device_images is on, but {sum(counts.values()):,} images take {in_bytes(needed)}, and "
        f"{in_bytes(free)} are free",
        fix="use data.device_images=auto, or a smaller student.image_size.",
    )
