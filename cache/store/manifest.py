"""What is complete: ``manifest.json``, a page that a person can read.

A shard that it does not list does not exist.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import NEWER, CacheMismatch, UserError, reason_of
from cache.runtime.system_errors import read_fault
from cache.sources.names import check_class_names, check_inner, is_plain_name
from cache.store.checksums import is_sealed, sealed
from cache.store.manifest_lines import (
    BankEntry,
    CropsEntry,
    FileEntry,
    PixelsEntry,
    ShardEntry,
    SkippedImage,
    SplitEntry,
    ViewsEntry,
    checked,
    entries_of,
    entry_of,
    names_of,
    side_entries,
    split_of,
)
from cache.store.spec import CacheSpec

NAME, BACKUP = "manifest.json", "manifest.backup.json"
SCHEMA_VERSION = 2
FEATURES, EPISODES = "cache-features", "robotics cache-features"
IMPORT, CONVERT = "cache import", "cache convert"
COMMANDS = (FEATURES, EPISODES, IMPORT, CONVERT)
MOST_EMBED_DIM = 2**16


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """The state of a cache folder. Every change is a new value, saved whole.

    ``made_by`` is the command that makes the cache, '' where that is not known. ``left_out`` are the text
    banks that the file lists under names that cannot be a bank's, and that so are none.
    ``schema_version`` is that of the file it was read from; it is saved in the newest.
    """

    spec: CacheSpec
    embed_dim: int
    splits: dict[str, SplitEntry] = field(default_factory=dict)
    banks: dict[str, BankEntry] = field(default_factory=dict)
    support: dict[str, ViewsEntry] = field(default_factory=dict)
    views: dict[str, CropsEntry] = field(default_factory=dict)
    pixels: dict[str, PixelsEntry] = field(default_factory=dict)
    text_tower: tuple[FileEntry, ...] = ()
    versions: dict[str, str] = field(default_factory=dict)
    made_by: str = ""
    complete: bool = False
    schema_version: int = SCHEMA_VERSION
    left_out: tuple[str, ...] = ()

    def save(self, folder: Path) -> None:
        """Write the manifest, whole or not at all, and then a copy of it, for the day it is damaged."""
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
            "made_by": self.made_by,
        }
        text = sealed(value) + "\n"
        for name in (NAME, BACKUP):
            with replacing(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, *, name: str = NAME) -> Manifest:
        """Read a cache folder's manifest; ``name`` is that of its copy, to read that.

        Raises
        ------
        UserError
            If there is none, it is damaged, or a newer version wrote it.
        """
        path = folder / name
        try:
            return cls._parsed(path, path.read_text(encoding="utf-8"))
        except OSError as error:
            if refused := read_fault(path, error):
                raise refused from error
            problem = f"{folder} is not a cache: it has no readable {name}"
            raise UserError(problem, fix=_advice(folder)) from error
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            reason = f"{type(error).__name__}: {' '.join(reason_of(error).split())}"
            raise UserError(
                f"{path} is damaged ({reason})",
                fix=f"run 'distill cache repair {folder}', which goes back to its copy.",
            ) from error

    @classmethod
    def _parsed(cls, path: Path, text: str) -> Manifest:
        value = json.loads(text)
        version = checked("schema_version", value["schema_version"], int)
        # The first schema has no seal; a text that has one is not of it.
        if not (is_sealed(text) if version != 1 else "sha256" not in value):
            raise ValueError("its text differs from its checksum")
        if version > SCHEMA_VERSION:
            raise CacheMismatch(
                f"{path} has schema version {version}, this program reads up to {SCHEMA_VERSION}",
                fix=NEWER,
            )
        return cls._from_json(value)

    @classmethod
    def _from_json(cls, value: dict[str, Any]) -> Manifest:
        return cls(
            spec=CacheSpec.from_json(value["spec"]),
            embed_dim=checked("embed_dim", value["embed_dim"], int, most=MOST_EMBED_DIM),
            splits={split_of(name): _split(split) for name, split in value["splits"].items()},
            banks={
                name: entry_of(BankEntry, {**bank, "templates": names_of(bank["templates"])})
                for name, bank in value["banks"].items()
                if is_plain_name(name)
            },
            support=side_entries(ViewsEntry, value.get("support", {})),
            views=side_entries(CropsEntry, value.get("views", {})),
            pixels=side_entries(PixelsEntry, value.get("pixels", {})),
            text_tower=entries_of(FileEntry, value.get("text_tower", ())),
            versions=checked("versions", value["versions"], dict),
            made_by=next((name for name in COMMANDS if name == value.get("made_by")), ""),
            complete=checked("complete", value["complete"], bool),
            schema_version=value["schema_version"],
            left_out=tuple(name for name in value["banks"] if not is_plain_name(name)),
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


def _split(value: dict[str, Any]) -> SplitEntry:
    skipped = entries_of(SkippedImage, value["skipped"])
    check_inner("a skipped image", [image.key for image in skipped])
    class_names = names_of(value["class_names"])
    check_class_names(class_names)
    return SplitEntry(
        class_names=class_names, shards=entries_of(ShardEntry, value["shards"]), skipped=skipped
    )


def _advice(folder: Path) -> str:
    if (folder / BACKUP).is_file():
        return f"its copy {BACKUP} is there: run 'distill cache repair {folder}'."
    return "give the folder that 'distill cache-features --out' wrote."
