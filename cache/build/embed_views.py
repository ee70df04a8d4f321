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
from cache.sources.decoding import UnreadableImage
from cache.sources.samples import Sample
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


def decoded(
    items: Dataset[Any],
    samples: Sequence[Sample],
    workers: int,
    batch_size: int,
    collate: Callable[[list[Any]], tuple[list[str], Any]] = joined,
) -> Iterator[tuple[slice, Any]]:
    """Yield which of some images, which have rows, a batch is of, and what ``collate`` makes of its items.

    That gives why each cannot be read, '' where it can. UserError where one cannot be read any more.
    """
    done = 0
    for reasons, made in batches(items, workers, batch_size=batch_size, collate_fn=collate):
        here = slice(done, done + len(reasons))
        for sample, reason in zip(samples[here], reasons, strict=True):
            if reason:
                raise UserError(
                    f"{sample.where} cannot be read any more ({reason})",
                    fix="bring the file back, or run the same command again: without it the row is seen no "
                    "more.",
                )
        yield here, made
        done = here.stop


def embed_views(
    tools: Tools, samples: Sequence[Sample], views: Callable[[int, Image.Image], Tensor], copies: int
) -> NDArray[Any]:
    """Return embeddings [m, V, D] of m images, raw, in the cache's dtype; raises as :func:`stored`.

    ``views`` gives V ``copies`` of one image, preprocessed, [V, 3, H, W].
    """
    teacher = tools.teacher
    assert teacher is not None
    rows = np.empty((len(samples), copies, teacher.embed_dim), dtype=tools.dtype)
    size = max(1, tools.batch_size // max(1, copies))
    started = (
        (here, teacher.start_images(filled(pixels, size).flatten(0, 1)))
        for here, pixels in decoded(Decoded(samples, views), samples, tools.workers, size)
    )
    for here, wait in one_behind(started):
        batch = wait().unflatten(0, (-1, copies)).numpy()[: here.stop - here.start]
        rows[here] = stored(batch, tools.dtype, rows_named("a view of ", samples[here]))
        tools.progress.advance(len(batch))
    return rows


def rows_named(of: str, samples: Sequence[Sample]) -> Callable[[int], str]:
    """Return what gives a row's name in a message."""
    return lambda i: f"the row of {of}{samples[i].where}"


def filled(images: Tensor, count: int) -> Tensor:
    """Return images [B, ...] as ``count`` of them, the first again where there are fewer.

    The last bits of a row depend on the size of its batch. In batches of one size a row is the same however
    the images are grouped: by one process, by several, or by one that was killed and went on.
    """
    return torch.cat([images, images[:1].expand(count - len(images), *images.shape[1:])])
