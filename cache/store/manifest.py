"""What is complete: ``manifest.json``, a page that a person can read.

A shard that it does not list does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import NO_CHECKSUM, UserError, other_schema, reason_of
from cache.runtime.json_values import value_of
from cache.runtime.system_errors import read_error
from cache.sources.names import check_class_names, check_inner, is_plain_name
from cache.sources.splits import SPLITS
from cache.store.checksums import has_its_checksum, with_checksum
from cache.store.manifest_lines import (
    COLUMNS,
    CropViewsColumn,
    ListedBank,
    ListedColumn,
    ListedFile,
    ListedShard,
    ListedSplit,
    PixelsColumn,
    SkippedImage,
    SupportViewsColumn,
)
from cache.store.spec import CacheSpec

NAME = "manifest.json"
SCHEMA_VERSION = 2
FEATURES, EPISODES = "cache-features", "robotics cache-features"
IMPORT, CONVERT = "cache import", "cache convert"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The state of a cache folder. Every change is a new value, saved whole.

    ``command`` is the one that makes the cache, '' where that is not known.
    """

    spec: CacheSpec
    embed_dim: int
    splits: dict[str, ListedSplit] = field(default_factory=dict)
    banks: dict[str, ListedBank] = field(default_factory=dict)
    support_views: dict[str, SupportViewsColumn] = field(default_factory=dict)
    crop_views: dict[str, CropViewsColumn] = field(default_factory=dict)
    pixels: dict[str, PixelsColumn] = field(default_factory=dict)
    text_tower: tuple[ListedFile, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    command: str = ""
    complete: bool = False

    def save(self, folder: Path) -> None:
        """Write the manifest, whole or not at all."""
        value = {"schema_version": SCHEMA_VERSION, "fingerprint": self.spec.fingerprint(), **asdict(self)}
        with replacing(folder / NAME) as temporary:
            temporary.write_text(with_checksum(value) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Manifest:
        """Read a cache folder's manifest.

        Raises
        ------
        UserError
            If there is none, it is damaged, or another version wrote it.
        """
        path = folder / NAME
        try:
            return cls._parsed(path, path.read_text(encoding="utf-8"))
        except OSError as error:
            if refused := read_error(path, error):
                raise refused from error
            raise UserError(
                f"{folder} is not a cache: it has no readable {NAME}",
                fix="give the folder that 'distill cache-features --out' wrote.",
            ) from error
        except (ValueError, RecursionError) as error:
            raise UserError(
                f"{path} is damaged ({' '.join(reason_of(error).split())})",
                fix="restore it from a copy, or move the cache away and make it again.",
            ) from error

    @classmethod
    def _parsed(cls, path: Path, text: str) -> Manifest:
        sound = has_its_checksum(text)
        if not sound:
            raise ValueError(NO_CHECKSUM if sound is None else "its text differs from its checksum")
        value: dict[str, Any] = json.loads(text)
        version = value.get("schema_version")
        if version != SCHEMA_VERSION:
            raise other_schema(path, version, SCHEMA_VERSION)
        ours = {f.name for f in fields(cls)}
        manifest = value_of(cls, {name: value[name] for name in value if name in ours}, name="it")
        manifest._check_names()
        return manifest

    def _check_names(self) -> None:
        """Raise a ValueError if a name leads out of the folder where it is made a path."""
        for tables in (self.splits, *(getattr(self, column) for column in COLUMNS)):
            if odd := next((name for name in tables if name not in SPLITS), None):
                raise ValueError(f"{odd!r:.80} is no split")
        for name in self.banks:
            if not is_plain_name(name):
                raise ValueError(f"a text bank is called {name!r:.80}")
        for split in self.splits.values():
            check_class_names(split.class_names)
            check_inner("a skipped image", [image.key for image in split.skipped])

    @property
    def rows(self) -> int:
        """How many images of all splits have a row."""
        return sum(split.rows for split in self.splits.values())

    @property
    def listed_shards(self) -> list[tuple[str, ListedShard]]:
        """Every shard with its split's name."""
        return [(name, shard) for name, split in self.splits.items() for shard in split.shards]

    @property
    def columns(self) -> list[ListedColumn]:
        """What is kept beside the rows of every split: support views, crops and pixels."""
        return [column for name in COLUMNS for column in getattr(self, name).values()]

    @property
    def column_shards(self) -> list[ListedShard]:
        """Every shard beside the image shards."""
        return [shard for column in self.columns for shard in column.shards]

    def with_split(self, name: str, split: ListedSplit) -> Manifest:
        """Return a manifest in which one split is ``split``."""
        return replace(self, splits={**self.splits, name: split})

    def with_shard(self, name: str, shard: ListedShard) -> Manifest:
        """Return a manifest that lists one more shard of a split, in place of one of the same file if any."""
        split = self.splits[name]
        shards = [*(other for other in split.shards if other.file != shard.file), shard]
        return self.with_split(name, replace(split, shards=tuple(sorted(shards, key=lambda one: one.file))))

    def with_skipped(self, name: str, skipped: Sequence[SkippedImage]) -> Manifest:
        """Return a manifest that lists more skipped images of a split, in place of those of the same key."""
        by_key = {image.key: image for image in (*self.splits[name].skipped, *skipped)}
        ordered = tuple(by_key[key] for key in sorted(by_key))
        return self.with_split(name, replace(self.splits[name], skipped=ordered))

    def with_bank(self, name: str, bank: ListedBank) -> Manifest:
        """Return a manifest that lists one more text bank."""
        return replace(self, banks={**self.banks, name: bank})
