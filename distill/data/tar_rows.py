"""Streams the training rows of a cache of tars: read, mixed and decoded in worker processes.

A worker holds one open tar and a window of undecoded pictures a lane, whatever the cache's size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from cache.runtime.errors import UserError
from cache.runtime.loader_workers import batches
from cache.sources.decoding import Decoding, UnreadableImage
from cache.store.column_lines import map_listed
from cache.store.journal import RowGroup
from cache.store.read_errors import REPAIR
from cache.store.row_group import KeysFile
from cache.store.tar_rows import TarRow, TarRows
from distill.data.id_val import SetAside
from distill.data.pixels import Decode
from distill.data.tar_epoch import TarEpoch

# How many keys of a batch are remembered, for messages.
NAMED = 3


@dataclass(frozen=True, kw_only=True)
class TrainingTar:
    """The tar of a row group whose rows are trained on, but for those ``aside``.

    Rows without a label as well unless ``labelled``.
    """

    cache: Path
    group: RowGroup
    aside: SetAside
    labelled: bool = False

    @cached_property
    def count(self) -> int:
        """How many rows are trained on."""
        return len(self.rows) if self.aside.share or self.labelled else self.group.live

    @property
    def rows(self) -> NDArray[np.int64]:
        """The numbers of the rows that are trained on, int64 [count], rising."""
        rows = self.group.live_rows
        if not self.aside.share and not self.labelled:  # then nobody asks for the keys
            return rows
        keys = KeysFile(self.cache, self.group.keys)
        has_label = keys.labels(keys.class_names, several=False)[rows] >= 0
        out = self.aside.of(keys.hashes[rows]) & has_label
        return rows[has_label & ~out if self.labelled else ~out]

    def samples(self, start: int, stop: int, columns: Sequence[str]) -> Iterator[TarRow]:
        """Yield the rows ``start`` to ``stop`` of those that are trained on, with what columns have of each.

        UserError where a file is damaged.
        """
        rows = self.rows[start:stop]
        wanted = set(rows.tolist())
        # Also captions that are in the tar: those of the file may have been given since.
        beside = {name: self._beside(name) for name in columns if name in self.group.lines}
        own = [name for name in columns if name not in beside]
        tar = TarRows.of(self.cache, self.group)
        for sample in tar.samples(int(rows[0]), int(rows[-1]) + 1, columns=own):
            if sample.row in wanted:
                more = {name: np.array(column[sample.row]) for name, column in beside.items()}
                yield replace(sample, arrays={**sample.arrays, **more})

    def _beside(self, column: str) -> NDArray[Any]:
        forms = {"embedding": ("f", (2,))}
        return map_listed(self.cache, self.group.lines[column], forms, rows=self.group.rows)["embedding"]


@dataclass(frozen=True, kw_only=True)
class StreamedRows:
    """What one process reads of a step's batch of ``total`` images: its share, b of them.

    ``label_b`` int64; ``columns`` are the rows of each column, [b, D] float32; ``keys`` name the first.
    """

    total: int
    label_b: Tensor
    columns: dict[str, Tensor]
    keys: tuple[str, ...]

    def __len__(self) -> int:
        return self.total


@dataclass(frozen=True)
class _Picture:
    """One picture of a stream, as something that can be decoded."""

    row: TarRow
    decoding: Decoding
    views: ClassVar[tuple[str, ...]] = ("image",)

    @property
    def key(self) -> str:
        return self.row.key

    def pictures(self) -> tuple[Image.Image, ...]:
        return (self.decoding.picture(self.content(), self.key),)

    def content(self) -> bytes:
        return self.row.picture


@dataclass(frozen=True, kw_only=True)
class TarReader:
    """Reads the training rows of some tars: ``columns`` of each row beside its picture and its label."""

    tars: tuple[TrainingTar, ...]
    class_names: tuple[str, ...]
    columns: tuple[str, ...]
    decode: Decode
    decoding: Decoding
    window: int
    workers: int

    def read(self, epoch: TarEpoch, rank: int) -> Iterator[tuple[StreamedRows, Tensor]]:
        """Yield what a process reads of every step of an epoch: rows, and decoded images [b, X, R, R].

        Raises
        ------
        UserError
            If a tar is damaged, or a picture cannot be decoded.
        """
        # A lane is one worker's.
        workers = min(2 ** (self.workers.bit_length() - 1), epoch.lanes) if self.workers else 0
        for step in batches(_Steps(self, epoch, rank), workers, batch_size=None, collate_fn=_as_it_is):
            if isinstance(step, UserError):
                raise step
            yield step

    def lane(self, epoch: TarEpoch, rank: int, lane: int) -> Iterator[TarRow]:
        """Yield what a lane still gives from an epoch's first step on."""
        window, skip = max(1, self.window // epoch.lanes), epoch.rows(rank, lane, before=epoch.first)
        for piece in epoch.pieces(rank, lane):
            size = piece.stop - piece.start
            if skip < size:  # what was given before is mixed as then, and passed over
                samples = self.tars[piece.tar].samples(piece.start, piece.stop, self.columns)
                yield from islice(epoch.mixed(samples, piece, window), skip, None)
            skip = max(0, skip - size)

    def step(self, samples: list[TarRow], total: int) -> tuple[StreamedRows, Tensor]:
        """Return a process's share of a batch; UserError where a picture cannot be decoded."""
        rows = StreamedRows(
            total=total,
            label_b=torch.tensor([self._label(sample) for sample in samples], dtype=torch.int64),
            columns={
                name: torch.from_numpy(np.stack([sample.arrays[name] for sample in samples])).float()
                for name in self.columns
            },
            keys=tuple(sample.key for sample in samples[:NAMED]),
        )
        return rows, torch.stack([self._decoded(sample) for sample in samples])

    def _label(self, sample: TarRow) -> int:
        if not sample.labels:
            return -1
        number = self._numbers.get(sample.labels[0])
        if number is None:
            raise UserError(
                f"{sample.key!r} is of a class {sample.labels[0]!r} that is none of train", fix=REPAIR
            )
        return number

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {name: number for number, name in enumerate(self.class_names)}

    def _decoded(self, sample: TarRow) -> Tensor:
        try:
            return self.decode(_Picture(sample, self.decoding))
        except UnreadableImage as error:
            raise UserError(f"the picture of {sample.key!r} cannot be read ({error})", fix=REPAIR) from error


def _as_it_is(step: Any) -> Any:
    return step


class _Steps(IterableDataset[Any]):
    """The steps of an epoch; of several workers each has some lanes. An error is given, not raised."""

    def __init__(self, reader: TarReader, epoch: TarEpoch, rank: int) -> None:
        self.reader, self.epoch, self.rank = reader, epoch, rank

    def __iter__(self) -> Iterator[tuple[StreamedRows, Tensor] | UserError]:
        worker, epoch = get_worker_info(), self.epoch
        number, workers = (worker.id, worker.num_workers) if worker else (0, 1)
        lanes: dict[int, Iterator[TarRow]] = {}
        for step in range(epoch.first + number, epoch.steps, workers):
            lane = step % epoch.lanes
            if lane not in lanes:
                lanes[lane] = self.reader.lane(epoch, self.rank, lane)
            try:
                samples = list(islice(lanes[lane], epoch.share(step, self.rank)))
                yield self.reader.step(samples, epoch.size(step))
            except UserError as error:
                yield error
                return
