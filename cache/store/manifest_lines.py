"""The lines of a manifest: what a cache holds, file by file, with the checks of what a file says of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from cache.runtime.atomic_files import sha256_of

# How pixels are kept.
ENCODINGS = ("raw", "jpeg")
# More about the same images, each in a folder and a field of the manifest of its name.
COLUMNS = ("support_views", "crop_views", "pixels")
# A file of a cache lies in one of its folders, whatever a manifest from elsewhere says.
_FILE = re.compile(rf"(images|texts|text_tower|{'|'.join(COLUMNS)})/(?!\.\.?$)[^/\\\0]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedFile:
    """A file below the cache folder and its checksum; ValueError where it is none of a cache."""

    file: str
    bytes: int
    sha256: str

    def __post_init__(self) -> None:
        if not _FILE.fullmatch(self.file):
            raise ValueError(f"{self.file!r:.80} is no file of a cache")

    @classmethod
    def of(cls, cache: Path, file: str, **more: Any) -> Self:
        """Return the line of a file that has just been written."""
        return cls(file=file, bytes=(cache / file).stat().st_size, sha256=sha256_of(cache / file), **more)

    def is_sound(self, cache: Path) -> bool:
        """Say whether the file is there, with its checksum."""
        path = cache / self.file
        return path.is_file() and path.stat().st_size == self.bytes and sha256_of(path) == self.sha256


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedShard(ListedFile):
    """One complete shard: its rows, and what was read of its captions."""

    rows: int
    captions_sha256: str = ""
    captions_missing: int = 0
    captions_truncated: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedImage:
    """An image that could not be decoded, and what its file looked like then."""

    key: str
    reason: str
    bytes: int
    mtime_ns: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSplit:
    """One split: its class folders in label order, its shards, and the images that were skipped."""

    class_names: tuple[str, ...]
    shards: tuple[ListedShard, ...] = ()
    skipped: tuple[SkippedImage, ...] = ()

    @property
    def rows(self) -> int:
        """How many images have a row."""
        return sum(shard.rows for shard in self.shards)

    @property
    def own_captions(self) -> int:
        """How many images have a caption of their own, not the one that stands in for a missing one."""
        return sum(shard.rows - shard.captions_missing for shard in self.shards if shard.captions_sha256)


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedBank(ListedFile):
    """One text bank: how many texts, and what made it.

    ``source`` says in words where the texts come from, and whether they found their classes by name.
    """

    texts: int
    made_from: str
    templates: tuple[str, ...] = ()
    truncated: int = 0
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedColumn:
    """More about the images of a split: its shards, and of each a digest of what it was made from."""

    shards: tuple[ListedShard, ...] = ()
    made_from: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.shards) != len(self.made_from):
            raise ValueError(f"{len(self.shards)} shards were made from {len(self.made_from)}")

    def keeping(self, fits: Callable[[ListedShard, str], bool]) -> Self:
        """Return the column with those shards alone that fit; each comes with what it was made from."""
        kept = [pair for pair in zip(self.shards, self.made_from, strict=True) if fits(*pair)]
        return replace(
            self, shards=tuple(shard for shard, _ in kept), made_from=tuple(made for _, made in kept)
        )

    @property
    def settings(self) -> list[float | str]:
        """What makes the column, beside the images: the fields of its kind, in their order."""
        return [getattr(self, own.name) for own in fields(self)[len(fields(ListedColumn)) :]]


@dataclass(frozen=True, kw_only=True, slots=True)
class SupportViewsColumn(ListedColumn):
    """Augmented views of some images of a split, ``views`` an image with the plain one.

    ``operations`` and ``magnitude`` are RandAugment's.
    """

    views: int
    operations: int = 2
    magnitude: int = 9


@dataclass(frozen=True, kw_only=True, slots=True)
class CropViewsColumn(ListedColumn):
    """Crops of the images of a split: ``views`` an image, at least ``scale`` of its area."""

    views: int
    scale: float


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelsColumn(ListedColumn):
    """The images of a split themselves, squashed to ``side``: ``raw`` or ``jpeg``."""

    side: int
    encoding: str

    def __post_init__(self) -> None:
        # Not super(), which a dataclass with slots leaves behind.
        ListedColumn.__post_init__(self)
        if self.encoding not in ENCODINGS:
            raise ValueError(f"encoding is {self.encoding!r:.40}")
