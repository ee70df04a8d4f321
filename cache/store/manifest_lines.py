"""The lines of a manifest: what a cache holds, file by file, with the checks of what a file says of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_origin, get_type_hints

from cache.sources.splits import SPLITS

# What memory is taken by: pixels a side, views of an image.
LARGEST, MOST = {"side": 4096, "views": 1000, "scale": 1}, 2**62
# How pixels are kept.
KINDS = ("raw", "jpeg")
# A file of a cache lies in one of its folders, whatever a manifest from elsewhere says.
_FILE = re.compile(r"(images|texts|support|views|pixels|text_tower)/(?!\.\.?$)[^/\\\0]+")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardEntry:
    """One complete shard: its file below the cache folder, its rows and its checksum."""

    file: str
    rows: int
    bytes: int
    sha256: str
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
class SplitEntry:
    """One split: its class folders in label order, its shards, and the images that were skipped."""

    class_names: tuple[str, ...]
    shards: tuple[ShardEntry, ...] = ()
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
class BankEntry:
    """One text bank: its file below the cache folder, how many texts, its checksum, and what made it.

    ``source`` says in words where the texts come from, and whether they found their classes by name.
    """

    file: str
    texts: int
    bytes: int
    sha256: str
    made_from: str
    templates: tuple[str, ...] = ()
    truncated: int = 0
    source: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class FileEntry:
    """A file below the cache folder and its checksum."""

    file: str
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True, slots=True)
class ViewsEntry:
    """Augmented views of some images of a split: files, how many views an image, and what made them."""

    views: int
    shards: tuple[ShardEntry, ...] = ()
    made_from: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class PixelsEntry:
    """The images of a split themselves, squashed to ``side``: ``raw`` or ``jpeg``; files, what made them."""

    side: int
    kind: str
    shards: tuple[ShardEntry, ...] = ()
    made_from: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class CropsEntry:
    """Crops of the images of a split: ``views`` an image, at least ``scale`` of its area; what made them."""

    views: int
    scale: float
    shards: tuple[ShardEntry, ...] = ()
    made_from: tuple[str, ...] = ()


Entry = TypeVar("Entry")


def side_entries(kind: type[Entry], values: dict[str, Any]) -> dict[str, Entry]:
    """Return the entries of side shards, split by split; raises as :func:`entry_of`."""
    return {
        split_of(split): entry_of(
            kind,
            {
                **value,
                "shards": entries_of(ShardEntry, value["shards"]),
                "made_from": names_of(value["made_from"]),
            },
        )
        for split, value in values.items()
    }


def entries_of(kind: type[Entry], values: Sequence[dict[str, Any]]) -> tuple[Entry, ...]:
    """Return several entries; raises as :func:`entry_of`."""
    return tuple(entry_of(kind, value) for value in values)


def entry_of(kind: type[Entry], value: dict[str, Any]) -> Entry:
    """Return one entry from its JSON.

    Raises
    ------
    ValueError, KeyError, TypeError
        If a field is missing, unknown or of another type, or the file is none of a cache.
    """
    hints = get_type_hints(kind)
    for name, found in value.items():
        checked(name, found, get_origin(hints[name]) or hints[name], most=LARGEST.get(name, MOST))
    if value.get("kind", KINDS[0]) not in KINDS:
        raise ValueError(f"kind is {value['kind']!r:.40}")
    if not _FILE.fullmatch(value.get("file", "images/any")):
        raise ValueError(f"{value['file']!r:.80} is no file of a cache")
    return kind(**value)


def split_of(name: str) -> str:
    """Return the name of a split; ValueError if there is none of that name."""
    if name not in SPLITS:
        raise ValueError(f"{name!r:.80} is no split")
    return name


def names_of(values: Any) -> tuple[str, ...]:
    """Return a list of texts; ValueError if it is none."""
    return tuple(checked("a name", value, str) for value in checked("names", values, list))


def checked(name: str, value: Any, kind: type, *, most: float = MOST) -> Any:
    """Return a value, whose ValueError names it if it is not of a kind, or no number from 0 to ``most``."""
    fits = isinstance(value, kind) or (kind is float and type(value) is int)
    numbered = kind in (int, float) and fits and not 0 <= value <= most
    if not fits or numbered or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"{name} is {value!r:.80}, expected {kind.__name__}")
    return value
