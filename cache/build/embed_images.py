"""Images -> the teacher's rows: decoding in worker processes overlaps the teacher's forward."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from cache.build.plan import Unit
from cache.build.unit_samples import SampleBatch
from cache.runtime.errors import UserError
from cache.runtime.loader_workers import batches
from cache.runtime.transfer import one_behind
from cache.sources.decoding import UnreadableImage
from cache.sources.samples import Sample
from cache.store.journal_lines import SkippedImage
from cache.store.spec import CacheSpec
from cache.teacher.sanity import ENOUGH, SameForAll, check_finite, stored
from cache.teacher.teacher import Teacher


@dataclass(kw_only=True)
class Seconds:
    """Where a run's time went. Decoding happens in workers, beside the rest; waiting is what it cost."""

    decoding: float = 0.0
    waiting: float = 0.0
    teacher: float = 0.0
    writing: float = 0.0

    def add(self, other: Seconds) -> None:
        """Add what another part of the run took."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))


@dataclass(frozen=True, kw_only=True)
class UnitSettings:
    """How units are embedded, wherever; ``planned`` names the row groups that the plan has seen.

    ``captions`` are the texts that a WebDataset has beside its pictures.
    """

    cache: Path
    spec: CacheSpec
    batch_size: int
    strict: bool
    planned: frozenset[str]
    captions: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Who embeds: a ``teacher`` with ``workers`` that decode, under a ``name`` that its journal has."""

    teacher: Teacher
    workers: int
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """One sample as a worker read it; ``reason`` says why it cannot be read, where it cannot."""

    reason: str
    sha256: str
    bytes: int
    mtime_ns: int
    seconds: float


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddedBatch:
    """A batch of a unit: the n samples that could be read, their ``columns``, and those that were skipped.

    A column is [n, D], or [n, 49, D] for regions, raw, in the cache's dtype.
    """

    unit: Unit
    samples: tuple[Sample, ...]
    decoded: tuple[Decoded, ...]
    columns: dict[str, NDArray[Any]]
    skipped: tuple[SkippedImage, ...]


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """How batches are embedded, and by whom; where the time went is added to ``seconds``."""

    settings: UnitSettings
    writer: Writer
    seconds: Seconds

    def embed(self, work: Iterable[SampleBatch]) -> Iterator[EmbeddedBatch]:
        """Embed batches in their order, each as a whole, so that it holds the same bits whoever makes it.

        Raises
        ------
        UserError
            If the teacher's output is not finite, the same for all or lost in the dtype, or with ``strict``
            an image cannot be read.
        """
        same = SameForAll()
        given: deque[SampleBatch] = deque()
        started = (self._start(given.popleft(), decoded, same) for decoded in self._decoded(work, given))
        # What a teacher that may say the same of everything has made is not handed over, and so not written.
        doubted: list[EmbeddedBatch] = []
        for batch in one_behind(started):
            doubted.append(self._finished(batch, same))
            if same.varies or len(doubted) > ENOUGH:
                yield from doubted
                doubted = []
        same.end()
        yield from doubted

    def _decoded(self, work: Iterable[SampleBatch], given: deque[SampleBatch]) -> Iterator[_Decoded]:
        """Yield what workers make of batches, which are kept in ``given`` meanwhile."""

        def handed_over() -> Iterator[list[Sample]]:
            for batch in work:
                given.append(batch)
                yield list(batch.samples)

        images = _Images(self.writer.teacher.in_workers)
        # A loader's batches of indices may be of anything that its items are made from.
        iterator = batches(images, self.writer.workers, batch_sampler=handed_over(), collate_fn=_joined)
        while True:
            start = time.perf_counter()
            decoded: _Decoded | Exception | None = next(iterator, None)
            self.seconds.waiting += time.perf_counter() - start
            if isinstance(decoded, Exception):
                raise decoded
            if decoded is None:
                return
            self.seconds.decoding += sum(image.seconds for image in decoded[0])
            yield decoded

    def _start(self, batch: SampleBatch, decoded: _Decoded, same: SameForAll) -> _Begun:
        began = time.perf_counter()
        wait = differ = None
        images, pixels = decoded
        if pixels is not None:
            differ = same.differ(pixels)
            regions = self.settings.spec.regions
            wait = _columns(self.writer.teacher, pixels, batch.samples[0].views, regions=regions)
        self.seconds.teacher += time.perf_counter() - began
        return _Begun(batch=batch, decoded=images, wait=wait, differ=differ)

    def _finished(self, begun: _Begun, same: SameForAll) -> EmbeddedBatch:
        batch, columns, strict = begun.batch, {}, self.settings.strict
        pairs = list(zip(batch.samples, begun.decoded, strict=True))
        skipped = tuple(_skipped(batch.unit.split, *pair, strict) for pair in pairs if pair[1].reason)
        read = [pair for pair in pairs if not pair[1].reason]
        if begun.wait is not None:
            start, where = time.perf_counter(), [sample.where for sample, _ in read]
            tensors, dtype = begun.wait(), self.settings.spec.dtype
            self.seconds.teacher += time.perf_counter() - start
            same.look(tensors["image_embedding"], begun.differ, where)
            for name, column in tensors.items():
                check_finite(column, where)
                columns[name] = stored(column.numpy(), dtype, lambda i: f"the row of {where[i]}")
        return EmbeddedBatch(
            unit=batch.unit,
            samples=tuple(sample for sample, _ in read),
            decoded=tuple(image for _, image in read),
            columns=columns,
            skipped=skipped,
        )


# Samples as a worker hands them over, with the pixels of the readable ones, [B, V, 3, H, W]: in one tensor,
# for each takes a file handle on its way.
_Decoded = tuple[list[Decoded], Tensor | None]


@dataclass(frozen=True, kw_only=True)
class _Begun:
    """A batch that the teacher has begun with; ``wait`` gives the columns of what could be read."""

    batch: SampleBatch
    decoded: Sequence[Decoded]
    wait: Callable[[], dict[str, Tensor]] | None
    differ: Tensor | None


class _Images(Dataset[Any]):
    """Decodes and preprocesses a sample's pictures; runs in workers, which are given the samples."""

    def __init__(self, transform: Callable[[Any], Tensor]) -> None:
        self.transform = transform

    def __getitem__(self, sample: Sample) -> tuple[Decoded, Tensor | None] | Exception:
        try:
            return self._decoded(sample)
        except (OSError, UserError) as error:
            # As a value: what a worker raises comes back as a text.
            return error

    def _decoded(self, sample: Sample) -> tuple[Decoded, Tensor | None]:
        start = time.perf_counter()
        pixels, reason = None, ""
        sha256, size, mtime_ns = sample.identity()
        try:
            pixels = torch.stack([self.transform(picture) for picture in sample.pictures()])
        except UnreadableImage as error:
            reason = str(error) or "unreadable"
        decoded = Decoded(
            reason=reason,
            sha256=sha256,
            bytes=size,
            mtime_ns=mtime_ns,
            seconds=time.perf_counter() - start,
        )
        return decoded, pixels


def _joined(decoded: list[tuple[Decoded, Tensor | None] | Exception]) -> _Decoded | Exception:
    read = []
    for one in decoded:
        if isinstance(one, Exception):
            return one
        read.append(one)
    pixels = [picture for _, picture in read if picture is not None]
    return [image for image, _ in read], torch.stack(pixels) if pixels else None


def _skipped(split: str, sample: Sample, image: Decoded, strict: bool) -> SkippedImage:
    if strict:
        raise UserError(
            f"{sample.where} cannot be read as an image ({image.reason})",
            fix="mend or remove the file, or leave out --strict to skip it.",
        )
    return SkippedImage(
        split=split, key=sample.key, reason=image.reason, bytes=image.bytes, mtime_ns=image.mtime_ns
    )


def _columns(
    teacher: Teacher, pixels_BV3HW: Tensor, views: Sequence[str], *, regions: bool
) -> Callable[[], dict[str, Tensor]]:
    """Begin every view's embeddings, with ``regions`` also of its regions; return what waits for them."""
    pictures = pixels_BV3HW.flatten(0, 1)
    waiting: dict[str, Callable[[], Tensor]] = {}
    if regions:
        whole, regions_of = teacher.embed_regions(pictures)
        waiting = {"embedding": lambda: whole, "region_embedding": lambda: regions_of}
    else:
        waiting = {"embedding": teacher.start_images(pictures)}

    def wait() -> dict[str, Tensor]:
        return {
            f"{view}_{name}": rows.unflatten(0, (-1, len(views)))[:, number].contiguous()
            for name, rows in ((name, embeddings()) for name, embeddings in waiting.items())
            for number, view in enumerate(views)
        }

    return wait
