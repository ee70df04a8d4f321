"""The tars of a cache as the data that they were made of: no folder of pictures is needed any more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.decoding import PLAIN, Decoding
from cache.sources.samples import DataFolder
from cache.store.cached_source import CachedSource, Known
from cache.store.journal import Journal, RowGroup
from cache.store.journal_lines import SAMPLES
from cache.store.manifest import Manifest
from cache.store.read_errors import REPAIR
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


class CachedTars(CachedSource[TarSample]):
    """The pictures of one split of a cache in the format webdataset; a chunk is a tar."""

    def __init__(
        self,
        cache: Path,
        split: str,
        classes: tuple[str, ...],
        groups: Sequence[RowGroup],
        *,
        decoding: Decoding = PLAIN,
    ) -> None:
        super().__init__(cache, split, classes, groups)
        self._decoding = decoding

    def samples_of(self, group: RowGroup) -> Callable[[int, Known], TarSample]:
        """Return what makes a sample, with its picture, of a tar's row."""
        tar, decoding = TarRows.of(self.cache, group), self._decoding
        return lambda row, known: TarSample(tar=tar, row=row, decoding=decoding, **known)


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
                split: CachedTars(
                    cache, split, manifest.splits[split], journal.live_groups(split), decoding=decoding
                )
                for split in manifest.splits
                if journal.rows(split)
            },
        )
