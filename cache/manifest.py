"""What is complete: ``manifest.json``, a page that a person can read.

A shard that it does not list does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cache.errors import CacheMismatch, UserError
from cache.files import write_json
from cache.spec import CacheSpec

NAME = "manifest.json"
SCHEMA_VERSION = 1


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


@dataclass(frozen=True, kw_only=True, slots=True)
class BankEntry:
    """One text bank: its file below the cache folder, how many texts, its checksum, and what made it."""

    file: str
    texts: int
    bytes: int
    sha256: str
    made_from: str
    templates: tuple[str, ...] = ()
    truncated: int = 0


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


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The state of a cache folder. Every change is a new value, saved whole."""

    spec: CacheSpec
    embed_dim: int
    splits: dict[str, SplitEntry] = field(default_factory=dict)
    banks: dict[str, BankEntry] = field(default_factory=dict)
    support: dict[str, ViewsEntry] = field(default_factory=dict)
    views: dict[str, CropsEntry] = field(default_factory=dict)
    pixels: dict[str, PixelsEntry] = field(default_factory=dict)
    text_tower: tuple[FileEntry, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    complete: bool = False

    def save(self, folder: Path) -> None:
        """Write the manifest, whole or not at all."""
        value = {
            "schema_version": SCHEMA_VERSION,
            "complete": self.complete,
            "fingerprint": self.spec.fingerprint(),
            "spec": self.spec.to_json(),
            "embed_dim": self.embed_dim,
            "splits": {name: {**asdict(split), "rows": split.rows} for name, split in self.splits.items()},
            "banks": {name: asdict(bank) for name, bank in self.banks.items()},
            "support": {name: asdict(views) for name, views in self.support.items()},
            "views": {name: asdict(crops) for name, crops in self.views.items()},
            "pixels": {name: asdict(pixels) for name, pixels in self.pixels.items()},
            "text_tower": [asdict(file) for file in self.text_tower],
            "versions": self.versions,
        }
        write_json(folder / NAME, value)

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a cache folder's manifest.

        Raises
        ------
        UserError
            If there is none, it is damaged, or a newer version wrote it.
        """
        path = folder / NAME
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise UserError(
                f"{folder} is not a cache: it has no readable {NAME}",
                fix="give the folder that 'distill cache-features --out' wrote.",
            ) from error
        except ValueError as error:
            raise _damaged(path, error) from error
        if not isinstance(value, dict) or value.get("schema_version") != SCHEMA_VERSION:
            found = value.get("schema_version") if isinstance(value, dict) else "no table"
            raise CacheMismatch(
                f"{path} has schema version {found}, this program reads {SCHEMA_VERSION}",
                fix="use the version of distill that wrote it, or build the cache again.",
            )
        try:
            return cls._from_json(value)
        except (KeyError, TypeError, AttributeError) as error:
            raise _damaged(path, error) from error

    @classmethod
    def _from_json(cls, value: dict[str, Any]) -> Manifest:
        return cls(
            spec=CacheSpec.from_json(value["spec"]),
            embed_dim=int(value["embed_dim"]),
            splits={name: _split_from_json(split) for name, split in value["splits"].items()},
            banks={
                name: BankEntry(**{**bank, "templates": tuple(bank["templates"])})
                for name, bank in value["banks"].items()
            },
            support={name: _views_from_json(views) for name, views in value.get("support", {}).items()},
            views={name: _crops_from_json(crops) for name, crops in value.get("views", {}).items()},
            pixels={name: _pixels_from_json(pixels) for name, pixels in value.get("pixels", {}).items()},
            text_tower=tuple(FileEntry(**file) for file in value.get("text_tower", ())),
            versions=dict(value["versions"]),
            complete=bool(value["complete"]),
        )

    @property
    def rows(self) -> int:
        """How many images of all splits have a row."""
        return sum(split.rows for split in self.splits.values())

    @property
    def shard_entries(self) -> list[tuple[str, ShardEntry]]:
        """Every shard with its split's name."""
        return [(name, shard) for name, split in self.splits.items() for shard in split.shards]

    @property
    def side_shards(self) -> list[ShardEntry]:
        """Every shard beside the image shards: support views, training views and pixels."""
        found = [shard for entry in self.support.values() for shard in entry.shards]
        found += [shard for entry in self.views.values() for shard in entry.shards]
        return found + [shard for entry in self.pixels.values() for shard in entry.shards]

    def with_split(self, name: str, split: SplitEntry) -> Manifest:
        """Return a manifest in which one split is ``split``."""
        return replace(self, splits={**self.splits, name: split})

    def with_shard(self, name: str, shard: ShardEntry) -> Manifest:
        """Return a manifest that lists one more shard of a split, in place of one of the same file if any."""
        split = self.splits[name]
        shards = [*(other for other in split.shards if other.file != shard.file), shard]
        return self.with_split(
            name, replace(split, shards=tuple(sorted(shards, key=lambda entry: entry.file)))
        )

    def with_skipped(self, name: str, skipped: Sequence[SkippedImage]) -> Manifest:
        """Return a manifest that lists more skipped images of a split, in place of those of the same key."""
        by_key = {image.key: image for image in (*self.splits[name].skipped, *skipped)}
        ordered = tuple(by_key[key] for key in sorted(by_key))
        return self.with_split(name, replace(self.splits[name], skipped=ordered))

    def with_bank(self, name: str, bank: BankEntry) -> Manifest:
        """Return a manifest that lists one more text bank."""
        return replace(self, banks={**self.banks, name: bank})


def _split_from_json(value: dict[str, Any]) -> SplitEntry:
    return SplitEntry(
        class_names=tuple(value["class_names"]),
        shards=tuple(ShardEntry(**shard) for shard in value["shards"]),
        skipped=tuple(SkippedImage(**image) for image in value["skipped"]),
    )


def _views_from_json(value: dict[str, Any]) -> ViewsEntry:
    return ViewsEntry(
        views=int(value["views"]),
        shards=tuple(ShardEntry(**shard) for shard in value["shards"]),
        made_from=tuple(value["made_from"]),
    )


def _crops_from_json(value: dict[str, Any]) -> CropsEntry:
    return CropsEntry(
        views=int(value["views"]),
        scale=float(value["scale"]),
        shards=tuple(ShardEntry(**shard) for shard in value["shards"]),
        made_from=tuple(value["made_from"]),
    )


def _pixels_from_json(value: dict[str, Any]) -> PixelsEntry:
    return PixelsEntry(
        side=int(value["side"]),
        kind=str(value["kind"]),
        shards=tuple(ShardEntry(**shard) for shard in value["shards"]),
        made_from=tuple(value["made_from"]),
    )


def _damaged(path: Path, error: Exception) -> UserError:
    return UserError(
        f"{path} is damaged ({type(error).__name__}: {error})",
        fix="restore it from a copy, or build the cache again.",
    )
