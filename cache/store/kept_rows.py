"""The rows of a cache as data, for who has the pixels that it keeps and not their files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.samples import DataFolder
from cache.store.cached_source import CachedSource, Known
from cache.store.journal import Journal, RowGroup
from cache.store.manifest import Manifest


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


class CachedKeys(CachedSource[KeptRow]):
    """The rows of one split of a cache, without pictures; a chunk is a row group."""

    def samples_of(self, group: RowGroup) -> Callable[[int, Known], KeptRow]:
        """Return what makes a sample of what a keys' file says of a row."""
        return lambda row, known: KeptRow(cache=self.cache, **known)


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
                split: CachedKeys(cache, split, manifest.splits[split], journal.live_groups(split))
                for split in manifest.splits
                if journal.rows(split)
            },
        )
