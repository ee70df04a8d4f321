"""What stage 1 embeds: records of one or more pictures, in splits. Photos and episodes are two kinds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image


class UnreadableImage(Exception):
    """A file that has an image's name but cannot be decoded; the message says why."""


class Record(Protocol):
    """One row of a cache: a key, the file it comes from, its label, and its pictures."""

    @property
    def key(self) -> str:
        """Its name within its split."""
        ...

    @property
    def path(self) -> Path:
        """The file that it is in."""
        ...

    @property
    def where(self) -> str:
        """The file, and the place in it where that is needed, for messages."""
        ...

    @property
    def label(self) -> int | tuple[int, ...]:
        """Its class within its split, or 0 and 1 for every class where it can have several."""
        ...

    @property
    def views(self) -> tuple[str, ...]:
        """What each picture is called; the first is ``image``. Columns are ``VIEW_embedding``."""
        ...

    def pictures(self) -> Sequence[Image.Image]:
        """Return one RGB picture a view; UnreadableImage when there is none to be had."""
        ...

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256 of the content, bytes and modification time in ns of the file)."""
        ...


class RecordSplit(Protocol):
    """The records of one split, sorted by key, and its class names."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Its classes in label order."""
        ...

    @property
    def images(self) -> Sequence[Record]:
        """Its records."""
        ...


class RecordFolder(Protocol):
    """The splits of one data folder."""

    @property
    def path(self) -> Path:
        """The folder."""
        ...

    @property
    def splits(self) -> Mapping[str, RecordSplit]:
        """Its splits by name."""
        ...

    @property
    def class_names(self) -> tuple[str, ...]:
        """Every class of every split, once."""
        ...

    def split(self, name: str) -> RecordSplit:
        """Return one split by either of its names; UserError when there is none."""
        ...
