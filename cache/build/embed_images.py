"""Images -> the teacher's rows: decoding in worker processes overlaps the teacher's forward."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from cache.runtime.errors import UserError
from cache.runtime.loader_workers import batches
from cache.runtime.transfer import one_behind
from cache.sources.samples import Sample, UnreadableImage, labels_of
from cache.store.manifest_lines import SkippedImage
from cache.store.shard_rows import ShardRows
from cache.teacher.open_clip_model import Teacher
from cache.teacher.sanity import SameForAll, check_finite, stored


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardPlan:
    """A shard that is still to be made: its file name and its images, in order; and the split's classes."""

    split: str
    class_names: tuple[str, ...]
    multi_label: bool
    file: str
    images: tuple[Sample, ...]


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Decoded:
    """One sample as a worker found it; ``reason`` says why it cannot be read, where it cannot."""

    reason: str
    sha256: str
    bytes: int
    mtime_ns: int
    seconds: float


@dataclass(kw_only=True)
class EmbeddedShard:
    """A planned shard with its rows and the images that were skipped.

    ``columns`` has batches of every column, [B, D], or [B, 49, D] for regions.
    """

    plan: ShardPlan
    samples: list[Sample] = field(default_factory=list)
    decoded: list[Decoded] = field(default_factory=list)
    columns: dict[str, list[Tensor]] = field(default_factory=dict)
    skipped: list[SkippedImage] = field(default_factory=list)

    def rows(self, dtype: str) -> ShardRows | None:
        """Return the rows, as :func:`stored` does, or None when no image could be read."""
        if not self.samples:
            return None
        columns = {
            name: stored(torch.cat(batches).numpy(), dtype, lambda i: f"the row of {self.samples[i].where}")
            for name, batches in self.columns.items()
        }
        return ShardRows(
            split=self.plan.split,
            keys=[sample.key for sample in self.samples],
            labels=labels_of(self.samples, self.plan.class_names, multi_label=self.plan.multi_label),
            image_embedding=columns.pop("image_embedding"),
            file_sha256=[image.sha256 for image in self.decoded],
            file_bytes=np.array([image.bytes for image in self.decoded], dtype=np.int64),
            file_mtime_ns=np.array([image.mtime_ns for image in self.decoded], dtype=np.int64),
            more=columns,
        )


# Samples as a worker hands them over, with the pixels of the readable ones, [B, V, 3, H, W]: in one tensor,
# for each takes a file handle on its way.
_Decoded = tuple[list[Decoded], Tensor | None]


class _Images(Dataset[Any]):
    """Decodes and preprocesses one sample's pictures; runs in workers."""

    def __init__(self, samples: Sequence[Sample], transform: Callable[[Any], Tensor]) -> None:
        self.samples = samples
        self.transform = transform

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Decoded, Tensor | None]:
        start = time.perf_counter()
        sample, pixels, reason = self.samples[index], None, ""
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


def embed_shards(
    teacher: Teacher,
    plans: Sequence[ShardPlan],
    *,
    batch_size: int,
    workers: int,
    strict: bool,
    regions: bool = False,
    seconds: Seconds,
    on_images: Callable[[int], None],
) -> Iterator[EmbeddedShard]:
    """Embed planned shards in order, yielding each when its last image is done.

    Batches never cross a shard's end, so that a shard redone after a kill is computed from the same
    batches and holds the same bits. With ``regions`` every picture's region embeddings are kept too.

    Raises
    ------
    UserError
        If the teacher's output is not finite or the same for all, or with ``strict`` an image cannot be
        read.
    """
    same = SameForAll()
    planned = [
        (plan, plan.images[start : start + batch_size])
        for plan in plans
        for start in range(0, len(plan.images), batch_size)
    ]
    images = _Images([sample for plan in plans for sample in plan.images], teacher.transform)
    batches_of = _decoded(images, [len(samples) for _, samples in planned], workers, seconds)
    started = (
        _start(teacher, plan, samples, decoded, regions=regions, seconds=seconds, same=same)
        for (plan, samples), decoded in zip(planned, batches_of, strict=True)
    )
    current: EmbeddedShard | None = None
    for batch in one_behind(started):
        if current is None or current.plan is not batch.plan:
            if current is not None:
                yield current
            current = EmbeddedShard(plan=batch.plan)
        _add_batch(current, batch, strict=strict, seconds=seconds, same=same)
        on_images(len(batch.samples))
    same.end()
    if current is not None:
        yield current


def _joined(decoded: list[tuple[Decoded, Tensor | None]]) -> _Decoded:
    pixels = [picture for _, picture in decoded if picture is not None]
    return [image for image, _ in decoded], torch.stack(pixels) if pixels else None


def _decoded(images: _Images, sizes: Sequence[int], workers: int, seconds: Seconds) -> Iterator[_Decoded]:
    """Yield batches of these sizes, in order."""
    ends = np.cumsum(sizes).tolist()
    indices = [list(range(end - size, end)) for end, size in zip(ends, sizes, strict=True)]
    iterator = batches(images, workers, batch_sampler=indices, collate_fn=_joined)
    while True:
        start = time.perf_counter()
        batch: _Decoded | None = next(iterator, None)
        seconds.waiting += time.perf_counter() - start
        if batch is None:
            return
        seconds.decoding += sum(image.seconds for image in batch[0])
        yield batch


@dataclass(frozen=True, kw_only=True)
class _Batch:
    """A batch that the teacher has begun with; ``wait`` gives the columns of what could be read."""

    plan: ShardPlan
    samples: Sequence[Sample]
    decoded: Sequence[Decoded]
    wait: Callable[[], dict[str, Tensor]] | None
    differ: Tensor | None


def _start(
    teacher: Teacher,
    plan: ShardPlan,
    samples: Sequence[Sample],
    decoded: _Decoded,
    *,
    regions: bool,
    seconds: Seconds,
    same: SameForAll,
) -> _Batch:
    began = time.perf_counter()
    wait = differ = None
    images, pixels = decoded
    if pixels is not None:
        differ = same.differ(pixels)
        wait = _columns(teacher, pixels, samples[0].views, regions=regions)
    seconds.teacher += time.perf_counter() - began
    return _Batch(plan=plan, samples=samples, decoded=images, wait=wait, differ=differ)


def _add_batch(
    shard: EmbeddedShard, batch: _Batch, *, strict: bool, seconds: Seconds, same: SameForAll
) -> None:
    readable = []
    for sample, image in zip(batch.samples, batch.decoded, strict=True):
        if not image.reason:
            readable.append((sample, image))
            continue
        if strict:
            raise UserError(
                f"{sample.where} cannot be read as an image ({image.reason})",
                fix="mend or remove the file, or leave out --strict to skip it.",
            )
        shard.skipped.append(
            SkippedImage(key=sample.key, reason=image.reason, bytes=image.bytes, mtime_ns=image.mtime_ns)
        )
    if batch.wait is None:
        return
    began = time.perf_counter()
    columns = batch.wait()
    seconds.teacher += time.perf_counter() - began
    where = [sample.where for sample, _ in readable]
    same.look(columns["image_embedding"], batch.differ, where)
    for name, column in columns.items():
        check_finite(column, where)
        shard.columns.setdefault(name, []).append(column)
    shard.samples += [sample for sample, _ in readable]
    shard.decoded += [image for _, image in readable]


def _columns(
    teacher: Teacher, pixels_BV3HW: Tensor, views: Sequence[str], *, regions: bool
) -> Callable[[], dict[str, Tensor]]:
    """Begin every view's embeddings, with ``regions`` also of its regions; return what waits for them."""
    pictures = pixels_BV3HW.flatten(0, 1)
    waiting: dict[str, Callable[[], Tensor]] = {}
    if regions:
        whole, parts = teacher.embed_regions(pictures)
        waiting = {"embedding": lambda: whole, "region_embedding": lambda: parts}
    else:
        waiting = {"embedding": teacher.start_images(pictures)}

    def wait() -> dict[str, Tensor]:
        return {
            f"{view}_{name}": rows.unflatten(0, (-1, len(views)))[:, number].contiguous()
            for name, rows in ((name, embeddings()) for name, embeddings in waiting.items())
            for number, view in enumerate(views)
        }

    return wait
