"""Pictures of images that have rows, decoded in workers, and the teacher's rows of views of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cache.build.columns import Tools
from cache.runtime.errors import UserError
from cache.runtime.loader_workers import batches, joined
from cache.runtime.transfer import one_behind
from cache.sources.samples import Sample, UnreadableImage
from cache.teacher.sanity import stored


def seed_of(key: str) -> int:
    """Return what an image's views are drawn from: a function of its key alone."""
    return int.from_bytes(sha256(key.encode("utf-8", "surrogateescape")).digest()[:7], "big")


class Decoded(Dataset[Any]):
    """What ``make`` makes of an image (its number, its first picture), or why not; runs in workers."""

    def __init__(self, samples: Sequence[Sample], make: Callable[[int, Image.Image], Any]) -> None:
        self.samples, self.make = samples, make

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        try:
            return self.make(index, self.samples[index].pictures()[0])
        except UnreadableImage as error:
            return str(error) or "unreadable"


def refuse_unreadable(samples: Sequence[Sample], reasons: Sequence[str]) -> None:
    """Raise a UserError if one of some images, which have rows, cannot be read any more."""
    for sample, reason in zip(samples, reasons, strict=True):
        if reason:
            raise UserError(
                f"{sample.where} cannot be read any more ({reason})",
                fix="bring the file back, or run the same command again: without it the row is seen no more.",
            )


def embed_views(
    tools: Tools, samples: Sequence[Sample], views: Callable[[int, Image.Image], Tensor], copies: int
) -> NDArray[Any]:
    """Return embeddings [m, V, D] of m images, raw, in the cache's dtype; raises as :func:`stored`.

    ``views`` gives V ``copies`` of one image, preprocessed, [V, 3, H, W].
    """
    teacher = tools.teacher
    assert teacher is not None
    rows = np.empty((len(samples), copies, teacher.embed_dim), dtype=tools.dtype)
    size, done = max(1, tools.batch_size // max(1, copies)), 0
    started = (
        teacher.start_images(filled(pixels, size).flatten(0, 1))
        for pixels in _decoded(tools, samples, views, size)
    )
    for wait in one_behind(started):
        batch = wait().unflatten(0, (-1, copies)).numpy()[: len(samples) - done]
        rows[done : done + len(batch)] = stored(batch, tools.dtype, _named(samples, done))
        done += len(batch)
        tools.progress.advance(len(batch))
    return rows


def filled(images: Tensor, count: int) -> Tensor:
    """Return images [B, ...] as ``count`` of them, the first again where there are fewer.

    The last bits of a row depend on the size of its batch. In batches of one size a row is the same however
    the images are grouped: by one process, by several, or by one that was killed and went on.
    """
    return torch.cat([images, images[:1].expand(count - len(images), *images.shape[1:])])


def _decoded(
    tools: Tools, samples: Sequence[Sample], views: Callable[[int, Image.Image], Tensor], size: int
) -> Iterator[Tensor]:
    """Yield the views of so many images at a time, [B, V, 3, H, W]."""
    done = 0
    items = Decoded(samples, views)
    for reasons, pixels in batches(items, tools.workers, batch_size=size, collate_fn=joined):
        refuse_unreadable(samples[done : done + len(reasons)], reasons)
        done += len(reasons)
        yield pixels


def _named(samples: Sequence[Sample], start: int) -> Callable[[int], str]:
    return lambda i: f"the row of a view of {samples[start + i].where}"
