"""What is in a cache, by its manifest and its journal alone: no row is read, and torch is not imported."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError
from cache.sources.accounts import Account
from cache.store.column_lines import MISSING, count_of
from cache.store.journal import Journal, RowGroup, writers
from cache.store.journal_lines import CAPTIONS
from cache.store.left_out import accounts_of
from cache.store.manifest import Manifest


@dataclass(frozen=True, kw_only=True, slots=True)
class SplitInfo:
    """A split: its row groups, its rows, those that were removed, and how many have a caption."""

    split: str
    classes: int
    groups: int
    rows: int
    removed: int
    skipped: int
    own_captions: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ColumnInfo:
    """A column of the row groups, ``of`` all groups of its splits: its rows, bytes and settings."""

    column: str
    groups: int
    of: int
    rows: int
    bytes: int
    settings: dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterInfo:
    """A file of the journal."""

    writer: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheInfo:
    """What is in a cache.

    ``made_with`` counts row groups by what made them: device, batch size, versions; ``left_out`` is what of a
    split's data has no row. ``problem`` says what the journal lost, '' for nothing; such a cache is not
    complete.
    """

    manifest: Manifest
    splits: tuple[SplitInfo, ...]
    columns: tuple[ColumnInfo, ...]
    writers: tuple[WriterInfo, ...]
    made_with: dict[str, int]
    left_out: dict[str, Account]
    problem: str = ""


def describe_cache(cache: Path) -> CacheInfo:
    """Return what is in a cache; UserError where its manifest or journal cannot be read."""
    manifest, journal, problem = Manifest.load(cache), Journal.load(cache), ""
    try:
        journal.check_lists(cache, manifest.rows)
    except UserError as error:
        manifest, problem = replace(manifest, complete=False), str(error)
    made_with: dict[str, int] = {}
    for group in journal.all_groups:
        words = _made_with(group)
        made_with[words] = made_with.get(words, 0) + 1
    return CacheInfo(
        manifest=manifest,
        splits=tuple(_split(manifest, journal, name) for name in manifest.splits),
        columns=tuple(_columns(manifest, journal.all_groups)),
        writers=tuple(WriterInfo(writer=path.stem, bytes=path.stat().st_size) for path in writers(cache)),
        made_with=made_with,
        left_out=accounts_of(manifest, journal),
        problem=problem,
    )


def _split(manifest: Manifest, journal: Journal, name: str) -> SplitInfo:
    groups = journal.groups(name)
    captioned = [group.lines[CAPTIONS] for group in groups if CAPTIONS in group.lines]
    return SplitInfo(
        split=name,
        classes=len(manifest.splits[name]),
        groups=len(groups),
        rows=sum(group.live for group in groups),
        removed=sum(len(group.removed) for group in groups),
        skipped=len(journal.skipped.get(name, {})),
        own_captions=sum(line.rows - count_of(line, MISSING) for line in captioned),
    )


def _columns(manifest: Manifest, groups: Sequence[RowGroup]) -> Iterable[ColumnInfo]:
    names = dict.fromkeys(column for group in groups for column in group.lines)
    for name in (*names, *(column for column in manifest.columns if column not in names)):
        listed = manifest.columns.get(name)
        lines = [group.lines[name] for group in groups if name in group.lines]
        yield ColumnInfo(
            column=name,
            groups=len(lines),
            of=sum(listed is None or group.split in listed.splits for group in groups),
            rows=sum(line.rows for line in lines),
            bytes=sum(line.bytes for line in lines),
            settings=listed.settings if listed else {},
        )


def _made_with(group: RowGroup) -> str:
    """Return on what a group's rows were computed, as far as its line says it."""
    about = group.keys.about
    versions = about.get("versions")
    told = [f"{name} {about[name]}" for name in ("device", "batch_size") if name in about]
    if isinstance(versions, dict):
        told += [f"{name} {versions[name]}" for name in ("distill", "torch") if name in versions]
    return ", ".join(told) or "not said"
