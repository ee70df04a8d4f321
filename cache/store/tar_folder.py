"""The tars of a cache as the data that they were made of: no folder of pictures is needed any more."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.accounts import Account
from cache.sources.decoding import PLAIN, Decoding
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Chunk, DataFolder, Listed
from cache.store.journal import Journal, RowGroup
from cache.store.journal_lines import SAMPLES
from cache.store.manifest import Manifest
from cache.store.read_errors import REPAIR
from cache.store.row_group import read_keys
from cache.store.split_rows import SplitGroups
from cache.store.tar_rows import TarRow, TarRows


@dataclass(frozen=True, kw_only=True, slots=True)
class TarSample:
    """One picture in a tar, opened when it is asked for: row ``row`` of the tar."""

    tar: TarRows
    row: int
    key: str
    labels: tuple[str, ...]
    sha256: bytes
    file_bytes: int
    mtime_ns: int
    decoding: Decoding
    views: ClassVar[tuple[str, ...]] = ("image",)
    caption: ClassVar[None] = None

    @property
    def where(self) -> str:
        """The tar, and the picture's key."""
        return f"{self.tar.path}: {self.key}"

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the decoded picture; UnreadableImage where it is none, UserError of a damaged tar."""
        return (self.decoding.picture(self.content(), self.key),)

    def content(self) -> bytes:
        """Return the bytes of the picture's file; UserError of a damaged tar."""
        return self._row.picture

    @property
    def _row(self) -> TarRow:
        (sample,) = self.tar.samples(self.row, self.row + 1)
        if sample.key != self.key:
            raise UserError(f"{self.tar.path} has another picture in the place of {self.key!r}", fix=REPAIR)
        return sample

    def identity(self) -> tuple[str, int, int]:
        """Return what the cache says of the picture's file: SHA-256, bytes, modification time in ns."""
        return self.sha256.hex(), *self.status()

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time of :meth:`identity`."""
        return self.file_bytes, self.mtime_ns


class TarSource:
    """The pictures of one split of a cache in the format webdataset; a chunk is a tar."""

    multi_label = False

    def __init__(
        self,
        cache: Path,
        split: str,
        classes: tuple[str, ...],
        groups: Sequence[RowGroup],
        *,
        decoding: Decoding = PLAIN,
    ) -> None:
        self.split, self.classes, self._cache, self._decoding = split, classes, cache, decoding
        self._groups = {group.name: group for group in groups}

    def __len__(self) -> int:
        return sum(group.live for group in self._groups.values())

    def chunks(self) -> Sequence[Chunk]:
        """Return the tars."""
        return [Chunk(id=name, identity=group.keys.sha256) for name, group in self._groups.items()]

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield what is in a tar, by key."""
        for sample in self.read(chunk):
            yield Listed(sample.key, sample.labels, sample.file_bytes, sample.mtime_ns)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[TarSample]:
        """Yield the samples of a tar by key, of ``keys`` alone where there are any."""
        samples = self.rows_of(chunk)
        yield from sorted((s for s in samples if keys is None or s.key in keys), key=lambda s: s.key)

    def rows_of(self, chunk: str, rows: Sequence[int] | None = None) -> Iterator[TarSample]:
        """Yield the samples of a tar that were not removed, in its order, of some ``rows`` alone."""
        group = self._groups[chunk]
        tar, keys = TarRows.of(self._cache, group), read_keys(self._cache, group.keys)
        sizes, times = keys.bytes.tolist(), keys.mtime_ns.tolist()
        for row in range(len(keys)) if rows is None else rows:
            if row not in group.removed:
                yield TarSample(
                    tar=tar,
                    row=row,
                    key=keys.keys[row],
                    labels=keys.labels[row],
                    sha256=keys.content[row].tobytes(),
                    file_bytes=sizes[row],
                    mtime_ns=times[row],
                    decoding=self._decoding,
                )

    def account(self) -> Account:
        """Return that nothing is left out: what is in a cache was taken."""
        return Account()

    def samples(self, keys: Sequence[str]) -> Iterator[TarSample]:
        """Yield samples in the order of keys; KeyError for one that is not here."""
        groups = SplitGroups(self._cache, self.split, tuple(self._groups.values()))
        at = groups.index.find(hashes_of(keys))
        if (at < 0).any():
            raise KeyError(keys[int((at < 0).argmax())])
        number, rows = groups.inside(groups.index.order[at])
        sample_of: dict[str, TarSample] = {}
        for one in np.unique(number).tolist():
            own = self.rows_of(groups.groups[one].name, rows[number == one].tolist())
            sample_of |= {sample.key: sample for sample in own}
        yield from (sample_of[key] for key in keys)

    def all(self) -> tuple[TarSample, ...]:
        """Return every sample, sorted by key."""
        return self._all

    @cached_property
    def _all(self) -> tuple[TarSample, ...]:
        samples = (sample for name in self._groups for sample in self.rows_of(name))
        return tuple(sorted(samples, key=lambda sample: sample.key))


@dataclass(frozen=True, kw_only=True)
class TarFolder(DataFolder):
    """The splits of a cache in the format webdataset, as its tars have them."""

    split_is = "split {!r}"
    layout = "tars of a cache in the format webdataset"

    @classmethod
    def of(
        cls, cache: Path, manifest: Manifest, journal: Journal, *, decoding: Decoding | None = None
    ) -> TarFolder:
        """Return the splits of a cache that have rows, decoded as these were made unless said otherwise.

        UserError where a row group has no tar of pictures.
        """
        decoding = decoding or manifest.spec.decoding
        for group in journal.all_groups:
            if SAMPLES not in group.lines:
                raise UserError(f"the row group {group.name} of {cache} has no tar", fix=REPAIR)
            tar = TarRows.of(cache, group)
            if not tar.pictures:
                raise UserError(
                    f"{tar.path} has rows alone, no pictures", fix="give their folder with --data."
                )
        return cls(
            path=cache,
            splits={
                split: TarSource(
                    cache, split, manifest.splits[split], journal.live_groups(split), decoding=decoding
                )
                for split in manifest.splits
                if journal.rows(split)
            },
        )
