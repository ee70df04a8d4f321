"""What is in a cache, by its manifest and its journal alone: no row is read, and torch is not imported."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cache.runtime.errors import UserError
from cache.sources.accounts import Account
from cache.sources.data import Given
from cache.sources.splits import MAIN_TEACHER
from cache.store.column_lines import MISSING, column_name, count_of
from cache.store.journal import Journal, RowGroup, writers
from cache.store.journal_lines import CAPTIONS, IMAGES, KEYS, SAMPLES, FileLine
from cache.store.left_out import accounts_of
from cache.store.manifest import Manifest
from cache.store.pixels import COLUMN as PIXELS


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
    """A column of the row groups, ``of`` all groups of its splits: its rows, bytes and settings.

    ``teacher`` is whose numbers these are, '' where they are nobody's; ``made_with`` counts its files by what
    made them.
    """

    column: str
    teacher: str
    groups: int
    of: int
    rows: int
    bytes: int
    settings: dict[str, Any]
    made_with: dict[str, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceInfo:
    """A source of the images as it was named, and whether it is ``there``, which no address is asked."""

    source: str
    there: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherInfo:
    """A teacher whose rows are here: what made them; ``rows`` are those that the cache has of it."""

    teacher: str
    model: str
    pretrained: str
    embed_dim: int
    precision: str
    rows: int
    text_tower: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class WriterInfo:
    """A file of the journal."""

    writer: str
    bytes: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CacheInfo:
    """What is in a cache.

    ``made_with`` counts row groups by what made them: device, batch size, versions; ``left_out`` is what of a
    split's data has no row; ``bytes`` is the size of all that is listed. ``problem`` says what the journal
    lost, '' for nothing; such a cache is not complete.
    """

    manifest: Manifest
    splits: tuple[SplitInfo, ...]
    columns: tuple[ColumnInfo, ...]
    writers: tuple[WriterInfo, ...]
    made_with: dict[str, int]
    left_out: dict[str, Account]
    named_sources: tuple[SourceInfo, ...]
    every_teacher: tuple[TeacherInfo, ...]
    bytes: int
    problem: str = ""


def describe_cache(cache: Path) -> CacheInfo:
    """Return what is in a cache; UserError where its manifest or journal cannot be read."""
    manifest, journal, problem = Manifest.load(cache), Journal.load(cache), ""
    try:
        journal.check_lists(cache, manifest.rows)
    except UserError as error:
        manifest, problem = replace(manifest, complete=False), str(error)
    columns = tuple(_columns(manifest, journal.all_groups))
    of_columns = sum(column.bytes for column in columns)
    return CacheInfo(
        manifest=manifest,
        splits=tuple(_split(manifest, journal, name) for name in manifest.splits),
        columns=columns,
        writers=tuple(WriterInfo(writer=path.stem, bytes=path.stat().st_size) for path in writers(cache)),
        made_with=dict(Counter(_made_with(group.keys) for group in journal.all_groups)),
        left_out=accounts_of(manifest, journal),
        named_sources=tuple(_sources(manifest)),
        every_teacher=tuple(_teachers(manifest, columns)),
        bytes=of_columns + sum(file.bytes for file in manifest.files),
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
        having = [group for group in groups if name in group.lines]
        lines = [group.lines[name] for group in having]
        yield ColumnInfo(
            column=name,
            teacher=_teacher_of(name, manifest),
            groups=len(lines),
            of=sum(listed is None or group.split in listed.splits for group in groups),
            rows=sum(line.rows for line in lines),
            bytes=sum(line.bytes for line in lines),
            settings=listed.settings if listed else {},
            # Of rows their keys' line says it, which is written with them.
            made_with=dict(
                Counter(_made_with(group.lines[name] if listed else group.keys) for group in having)
            ),
        )


def _teacher_of(column: str, manifest: Manifest) -> str:
    """Return whose numbers a column holds, '' where they are nobody's: keys, pictures."""
    name, dot, _ = column.partition(".")
    if dot:
        return name if name in manifest.teachers else ""
    return "" if column in (KEYS, SAMPLES, PIXELS) else MAIN_TEACHER


def _sources(manifest: Manifest) -> Iterable[SourceInfo]:
    kept = manifest.sources
    gone = kept.gone if kept is not None else ()
    for one in kept.given if kept is not None else ():
        yield SourceInfo(source=one, there=Given.parse(one).place not in gone)


def _teachers(manifest: Manifest, columns: Sequence[ColumnInfo]) -> Iterable[TeacherInfo]:
    rows = {column.column: column.rows for column in columns}
    rows.setdefault(IMAGES, rows.get(SAMPLES, 0))  # which has the first teacher's rows in its tars
    for name, spec in manifest.teacher_specs.items():
        own = manifest.of_teacher(name)
        yield TeacherInfo(
            teacher=name,
            model=spec.model,
            pretrained=spec.pretrained,
            embed_dim=own.embed_dim,
            precision=spec.precision,
            rows=rows.get(column_name(IMAGES, name), 0),
            text_tower=bool(own.text_tower),
        )


def _made_with(line: FileLine) -> str:
    """Return on what a file's numbers were computed, as far as its line says it."""
    about = line.about
    versions = about.get("versions")
    told = [f"{name} {about[name]}" for name in ("device", "batch_size") if name in about]
    if isinstance(versions, dict):
        told += [f"{name} {versions[name]}" for name in ("distill", "torch") if name in versions]
    return ", ".join(told) or "not said"
