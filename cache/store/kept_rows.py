"""The rows of a cache as data, for who has the pixels that it keeps and not their files."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.accounts import Account
from cache.sources.samples import Chunk, DataFolder, Listed
from cache.store.journal import Journal, RowGroup
from cache.store.manifest import Manifest
from cache.store.row_group import read_keys


@dataclass(frozen=True, kw_only=True, slots=True)
class KeptRow:
    """One image that a cache has a row of, known by what its keys file says of the picture's file."""

    cache: Path
    key: str
    labels: tuple[str, ...]
    sha256: bytes
    file_bytes: int
    mtime_ns: int
    views: ClassVar[tuple[str, ...]] = ("image",)
    caption: ClassVar[None] = None

    @property
    def where(self) -> str:
        """The cache, and the picture's key."""
        return f"{self.cache}: {self.key}"

    def pictures(self) -> tuple[Image.Image, ...]:
        """Raise the UserError that there is no picture: the pixels are the cache's."""
        raise UserError(
            f"{self.cache} does not keep the picture of {self.key!r} at this size, and its source is gone",
            fix="say where the images are now with --data, or use the size that 'distill cache info' shows.",
        )

    def content(self) -> bytes:
        """Return nothing: there is no file."""
        return b""

    def identity(self) -> tuple[str, int, int]:
        """Return what the cache says of the picture's file: SHA-256, bytes, modification time in ns."""
        return self.sha256.hex(), *self.status()

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time of :meth:`identity`."""
        return self.file_bytes, self.mtime_ns


class KeptSource:
    """The rows of one split of a cache; a chunk is a row group."""

    multi_label = False

    def __init__(self, cache: Path, split: str, classes: tuple[str, ...], groups: Sequence[RowGroup]) -> None:
        self.split, self.classes, self._cache = split, classes, cache
        self._groups = {group.name: group for group in groups}

    def __len__(self) -> int:
        return sum(group.live for group in self._groups.values())

    def chunks(self) -> Sequence[Chunk]:
        """Return the row groups."""
        return [Chunk(id=name, identity=group.keys.sha256) for name, group in self._groups.items()]

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield what is in a row group, by key."""
        for sample in self.read(chunk):
            yield Listed(sample.key, sample.labels, sample.file_bytes, sample.mtime_ns)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[KeptRow]:
        """Yield the samples of a row group by key, of ``keys`` alone where there are any."""
        own = self._rows(self._groups[chunk])
        yield from sorted((row for row in own if keys is None or row.key in keys), key=lambda row: row.key)

    def _rows(self, group: RowGroup) -> Iterator[KeptRow]:
        keys = read_keys(self._cache, group.keys)
        sizes, times = keys.bytes.tolist(), keys.mtime_ns.tolist()
        for row in range(len(keys)):
            if row not in group.removed:
                yield KeptRow(
                    cache=self._cache,
                    key=keys.keys[row],
                    labels=keys.labels[row],
                    sha256=keys.content[row].tobytes(),
                    file_bytes=sizes[row],
                    mtime_ns=times[row],
                )

    def account(self) -> Account:
        """Return that nothing is left out: what is in a cache was taken."""
        return Account()

    def samples(self, keys: Sequence[str]) -> Iterator[KeptRow]:
        """Yield samples in the order of keys; KeyError for one that is not here."""
        by_key = {sample.key: sample for sample in self.all()}
        yield from (by_key[key] for key in keys)

    def all(self) -> tuple[KeptRow, ...]:
        """Return every sample, sorted by key."""
        return self._all

    @cached_property
    def _all(self) -> tuple[KeptRow, ...]:
        rows = (row for group in self._groups.values() for row in self._rows(group))
        return tuple(sorted(rows, key=lambda row: row.key))


@dataclass(frozen=True, kw_only=True)
class KeptFolder(DataFolder):
    """The splits of a cache that has the pixels of every image that is learnt from or judged."""

    split_is = "split {!r}"
    layout = "a cache that keeps pixels"

    @classmethod
    def of(cls, cache: Path, manifest: Manifest, journal: Journal) -> KeptFolder:
        """Return the splits of a cache that have rows."""
        return cls(
            path=cache,
            splits={
                split: KeptSource(cache, split, manifest.splits[split], journal.live_groups(split))
                for split in manifest.splits
                if journal.rows(split)
            },
        )
