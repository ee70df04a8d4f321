"""Image files -> tensors, decoded once and kept when memory allows, else anew in worker processes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cache.errors import UserError
from cache.images import ImageRecord, UnreadableImage, load_rgb
from cache.records import Record

Indices = NDArray[np.int64]


class Decode(Protocol):
    """Turns one record into a tensor of ``shape`` and ``dtype``; UnreadableImage when it cannot."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[X, R, R] of one image."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What its numbers are."""
        ...

    def __call__(self, record: Any) -> Tensor:
        """Decode one record."""
        ...


@dataclass(frozen=True)
class SquashedPhoto:
    """A photo squashed to ``side`` x ``side`` (bilinear), uint8 [3, side, side]."""

    side: int
    dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """[3, side, side]."""
        return (3, self.side, self.side)

    def __call__(self, record: ImageRecord) -> Tensor:
        """Decode one image file."""
        from PIL import Image

        squashed = load_rgb(record.path).resize((self.side, self.side), Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(squashed)).permute(2, 0, 1)


class _Decoder(Dataset[Any]):
    """Decodes one image, or says why it cannot; runs in workers."""

    def __init__(self, records: Sequence[Record], decode: Decode) -> None:
        self.records, self.decode = records, decode

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.decode(self.records[index])
        except UnreadableImage as error:
            return str(error)


def _as_list(items: list[Any]) -> list[Any]:
    return items


class Pixels:
    """The decoded images of some records.

    ``memory`` is how many bytes may be spent on keeping all of them; 0 decodes anew each time. An
    unreadable file is an error with ``strict``, else it is left out of every batch and named in
    ``unreadable``.
    """

    def __init__(
        self, records: Sequence[Record], decode: Decode, *, memory: int, workers: int, strict: bool
    ) -> None:
        self.records, self.decode, self.workers, self.strict = list(records), decode, workers, strict
        self.bytes = len(self.records) * math.prod(decode.shape) * decode.dtype.itemsize
        self.unreadable: dict[str, str] = {}
        self._kept: Tensor | None = None
        self._good = np.ones(len(self.records), dtype=bool)
        if self.bytes <= memory:
            self._keep_all()

    @property
    def kept_bytes(self) -> int:
        """How much memory the kept images take."""
        return self.bytes if self._kept is not None else 0

    def batches(self, batches: Sequence[Indices]) -> Iterator[tuple[Indices, Tensor]]:
        """Yield for every index array its readable indices and their images, [B, X, R, R]."""
        if self._kept is not None:
            for indices in batches:
                readable = indices[self._good[indices]]
                yield readable, self._kept[torch.from_numpy(readable)]
            return
        for indices, images in zip(batches, self._loader(batches), strict=True):
            good = np.array([isinstance(image, Tensor) for image in images], dtype=bool)
            self._note_unreadable(indices, images)
            tensors = [image for image in images if isinstance(image, Tensor)]
            if tensors:
                yield indices[good], torch.stack(tensors)

    def _keep_all(self) -> None:
        kept = torch.zeros(len(self.records), *self.decode.shape, dtype=self.decode.dtype)
        everything = np.arange(len(self.records))
        chunks = [everything[start : start + 64] for start in range(0, len(everything), 64)]
        for indices, images in zip(chunks, self._loader(chunks), strict=True):
            self._note_unreadable(indices, images)
            for index, image in zip(indices, images, strict=True):
                if isinstance(image, Tensor):
                    kept[index] = image
                else:
                    self._good[index] = False
        self._kept = kept

    def _note_unreadable(self, indices: Indices, images: Sequence[Tensor | str]) -> None:
        for index, image in zip(indices, images, strict=True):
            if isinstance(image, Tensor):
                continue
            record = self.records[index]
            if self.strict:
                raise UserError(
                    f"{record.where} cannot be read as an image any more ({image})",
                    fix="bring the file back, or build the cache again with --rebuild.",
                )
            self.unreadable[record.key] = image

    def _loader(self, batches: Sequence[Indices]) -> DataLoader[Any]:
        return DataLoader(
            _Decoder(self.records, self.decode),
            batch_sampler=[indices.tolist() for indices in batches],
            num_workers=self.workers,
            collate_fn=_as_list,
            prefetch_factor=4 if self.workers else None,
        )
