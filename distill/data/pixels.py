"""Image files -> tensors, decoded once and kept when memory allows, else anew in worker processes."""

from __future__ import annotations

import math
import mmap
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cache.runtime.errors import UserError
from cache.runtime.loader_workers import apart, joined
from cache.runtime.loader_workers import batches as decoded_ahead
from cache.runtime.transfer import to_device
from cache.sources.decoders import PILLOW, squash, squash_picture
from cache.sources.decoding import UnreadableImage, content_of
from cache.sources.samples import Sample

if TYPE_CHECKING:
    from cache import EmbeddingCache
    from cache.store.pixels import StoredPixels

Indices = NDArray[np.int64]


class Decode(Protocol):
    """Turns one sample into a tensor of ``shape`` and ``dtype``; UnreadableImage when it cannot."""

    @property
    def shape(self) -> tuple[int, ...]:
        """[X, R, R] of one image."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """What its numbers are."""
        ...

    def __call__(self, sample: Any) -> Tensor:
        """Decode one sample."""
        ...


@dataclass(frozen=True)
class SquashedPhoto:
    """A photo squashed to ``side`` x ``side`` (bilinear) by a ``decoder``, uint8 [3, side, side]."""

    side: int
    decoder: str = PILLOW
    dtype = torch.uint8

    @property
    def shape(self) -> tuple[int, ...]:
        """[3, side, side]."""
        return (3, self.side, self.side)

    def __call__(self, sample: Sample) -> Tensor:
        """Decode one photo."""
        decoding = getattr(sample, "decoding", None)
        if self.decoder == PILLOW or decoding is None:  # a picture of no file
            pixels = squash_picture(sample.pictures()[0], self.side, decoder=self.decoder)
        else:
            content = content_of(sample.content)
            pixels = squash(content, self.side, decoding, decoder=self.decoder, name=sample.key)
        return torch.from_numpy(pixels).permute(2, 0, 1)


class _Decoder(Dataset[Any]):
    """Decodes one image, of samples or of places in a cache, or says why it cannot; runs in workers."""

    def __init__(self, samples: Sequence[Any], decode: Callable[[Any], Tensor]) -> None:
        self.samples, self.decode = samples, decode

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Tensor | str:
        try:
            return self.decode(self.samples[index])
        except UnreadableImage as error:
            return str(error)


def _rows(kept: Tensor, indices: Indices) -> Tensor:
    if kept.device.type == "cpu":  # numpy copies row by row, in less than half of torch's time
        return torch.from_numpy(kept.numpy()[indices])
    return kept[to_device(torch.from_numpy(indices), kept.device)]


def image_bytes(decode: Decode, count: int) -> int:
    """Return the bytes of ``count`` decoded images."""
    return count * math.prod(decode.shape) * decode.dtype.itemsize


class StoredImages:
    """The images of some samples that a cache keeps; nothing is decoded where it keeps them raw."""

    def __init__(self, sources: Sequence[StoredPixels], source_of: Indices, row_of: Indices) -> None:
        """Image i is row ``row_of[i]`` of source ``source_of[i]``."""
        self._sources, self._source_of, self._row_of = sources, source_of, row_of

    @classmethod
    def find(
        cls, cache: EmbeddingCache, parts: Sequence[tuple[str, Sequence[Sample]]], side: int
    ) -> StoredImages | None:
        """Return the images of some samples of each split of a cache; None unless it has all of them."""
        parts = [part for part in parts if part[1]]
        of_splits = {split: cache.pixels(split, side=side) for split, _ in parts}
        sources = [source for source in of_splits.values() if source is not None]
        if not parts or len(sources) < len(of_splits):
            return None
        number = {split: i for i, split in enumerate(of_splits)}
        source_of = np.concatenate([np.full(len(part), number[split]) for split, part in parts])
        found = [sources[number[split]].find([one.key for one in part]) for split, part in parts]
        row_of = np.concatenate(found)
        return cls(sources, source_of, row_of) if (row_of >= 0).all() else None

    @property
    def raw(self) -> bool:
        """Whether nothing has to be decoded."""
        return all(source.encoding == "raw" for source in self._sources)

    def image(self, index: int) -> Tensor:
        """Return one image, uint8 [3, R, R]."""
        return self.images(np.array([index]))[0]

    def images(self, indices: Indices) -> Tensor:
        """Return some images, uint8 [B, 3, R, R]."""
        sources, rows = self._source_of[indices], self._row_of[indices]
        if len(self._sources) == 1:
            return torch.from_numpy(self._sources[0].images(rows))
        side = self._sources[0].side
        images = torch.empty(len(indices), 3, side, side, dtype=torch.uint8)
        for number in np.unique(sources):
            chosen = sources == number
            images[torch.from_numpy(chosen)] = torch.from_numpy(self._sources[number].images(rows[chosen]))
        return images


class Pixels:
    """The decoded images of some samples.

    ``memory`` is how many bytes may be spent on keeping all of them; 0 decodes anew each time. What is
    ``stored`` is read from there instead. With ``device`` all are kept there, whatever ``memory`` says.
    What is kept is decoded when it is first asked for. An unreadable file is an error with ``strict``,
    else it is left out of every batch and named in ``unreadable`` from then on.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        decode: Decode,
        *,
        memory: int,
        workers: int,
        strict: bool,
        stored: StoredImages | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.samples, self.decode, self.workers, self.strict = samples, decode, workers, strict
        self.bytes = image_bytes(decode, len(self.samples))
        self.stored = stored
        self.unreadable: dict[str, str] = {}
        self._kept: Tensor | None = None
        self._good = np.ones(len(self.samples), dtype=bool)
        self._here = np.zeros(len(self.samples), dtype=bool)
        if device is not None or (stored is None and self.bytes <= memory):
            self._kept = self._room(device or torch.device("cpu"))

    @property
    def kept_bytes(self) -> int:
        """How much of the computer's memory the kept images take."""
        return self.bytes if self._kept is not None and self._kept.device.type == "cpu" else 0

    def batches(self, batches: Sequence[Indices]) -> Iterator[tuple[Indices, Tensor]]:
        """Yield for every index array its readable indices and their images, [B, X, R, R]."""
        if self._kept is not None:
            for indices in self._kept_now(self._kept, batches):
                readable = indices[self._good[indices]]
                yield readable, _rows(self._kept, readable)
        elif self.stored is not None and self.stored.raw:
            for indices in batches:
                yield indices, self.stored.images(indices)
        else:
            yield from self._decoded(batches)

    def _decoded(self, batches: Sequence[Indices]) -> Iterator[tuple[Indices, Tensor]]:
        for indices, images in zip(batches, self._loader(batches), strict=True):
            readable, tensors = self._readable(indices, images)
            if tensors:
                yield readable, torch.stack(tensors)

    def _room(self, device: torch.device) -> Tensor:
        """Return where all images will be kept; on the CPU it takes no memory before they are there."""
        shape = (len(self.samples), *self.decode.shape)
        if device.type != "cpu" or not self.bytes:
            return torch.empty(shape, dtype=self.decode.dtype, device=device)
        # torch.zeros would touch every page: what malloc has kept back is not new to it.
        pages = mmap.mmap(-1, self.bytes)
        return torch.frombuffer(pages, dtype=self.decode.dtype).view(shape)

    def _kept_now(self, kept: Tensor, batches: Sequence[Indices]) -> Iterator[Indices]:
        """Yield every index array once all its images are kept."""
        new, here = [], self._here.copy()
        for indices in batches:
            new.append(np.unique(indices[~here[indices]]))
            here[indices] = True
        decoded = self._read([missing for missing in new if len(missing)])
        for indices, missing in zip(batches, new, strict=True):
            if len(missing):
                self._keep(kept, missing, next(decoded))
            yield indices

    def _read(self, batches: Sequence[Indices]) -> Iterator[Sequence[Tensor | str]]:
        """Yield the images of index arrays, or why they cannot be read."""
        if self.stored is not None and self.stored.raw:
            yield from (self.stored.images(indices).unbind() for indices in batches)
        elif batches:
            yield from self._loader(batches)

    def _keep(self, kept: Tensor, indices: Indices, images: Sequence[Tensor | str]) -> None:
        readable, tensors = self._readable(indices, images)
        if tensors:
            places = to_device(torch.from_numpy(readable), kept.device)
            kept[places] = to_device(torch.stack(tensors), kept.device)
        self._good[np.setdiff1d(indices, readable)] = False
        self._here[indices] = True

    def _readable(self, indices: Indices, images: Sequence[Tensor | str]) -> tuple[Indices, list[Tensor]]:
        """Return the images that could be read, after their indices; the others are noted, or an error."""
        for index, image in zip(indices, images, strict=True):
            if isinstance(image, Tensor):
                continue
            sample = self.samples[index]
            if self.strict:
                raise UserError(
                    f"{sample.where} cannot be read as an image any more ({image})",
                    fix="bring the file back, or build the cache again with --rebuild.",
                )
            self.unreadable[sample.key] = image
        good = np.array([isinstance(image, Tensor) for image in images], dtype=bool)
        return indices[good], [image for image in images if isinstance(image, Tensor)]

    def _loader(self, batches: Sequence[Indices]) -> Iterator[Sequence[Tensor | str]]:
        stored = self.stored
        items = (
            _Decoder(self.samples, self.decode)
            if stored is None
            else _Decoder(range(len(self.samples)), stored.image)
        )
        order = [indices.tolist() for indices in batches]
        return map(apart, decoded_ahead(items, self.workers, ahead=4, batch_sampler=order, collate_fn=joined))
