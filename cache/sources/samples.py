"""What stage 1 embeds: records of one or more pictures, in splits. Photos and episodes are two kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol

from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.splits import FOLDERS, split_name


class UnreadableImage(Exception):
    """A file that has an image's name but cannot be decoded; the message says why."""


class Record(Protocol):
    """One row of a cache: a key, the file it comes from, its label, and its pictures."""

    @property
    def key(self) -> str:
        """Its name within its split."""

    @property
    def path(self) -> Path:
        """The file that it is in."""

    @property
    def where(self) -> str:
        """The file, and the place in it where that is needed, for messages."""

    @property
    def label(self) -> int | tuple[int, ...]:
        """Its class within its split, or 0 and 1 for every class where it can have several."""

    @property
    def views(self) -> tuple[str, ...]:
        """What each picture is called; the first is ``image``. Columns are ``VIEW_embedding``."""

    def pictures(self) -> Sequence[Image.Image]:
        """Return one RGB picture a view; UnreadableImage when there is none to be had."""

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256 of the content, bytes and modification time in ns of the file)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RecordSplit:
    """The records of one split, sorted by key, and its classes in label order."""

    name: str
    class_names: tuple[str, ...]
    images: tuple[Record, ...]


@dataclass(frozen=True, kw_only=True)
class RecordFolder:
    """The splits of one data folder, by name.

    ``split_is`` and ``layout`` say what holds a split, for messages.
    """

    split_is: ClassVar[str]
    layout: ClassVar[str]
    path: Path
    splits: Mapping[str, RecordSplit]

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class of every split, sorted, once."""
        return tuple(sorted({name for split in self.splits.values() for name in split.class_names}))

    @classmethod
    def missing(cls, path: Path, name: str) -> UserError:
        """Return the error of a data folder without that split; it names some of what is there."""
        there = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))[:8]
        return UserError(
            f"{path} has no {cls.split_is.format(FOLDERS[name])}, which holds the split {name} "
            f"(it has {', '.join(there) or 'nothing'})",
            fix=f"lay the data out as {cls.layout}.",
        )

    def split(self, name: str) -> RecordSplit:
        """Return one split by either of its names; UserError when there is none."""
        name = split_name(name)
        if name not in self.splits:
            raise self.missing(self.path, name)
        return self.splits[name]
