"""Rows of some row groups as a group of the same cache or another, in either format, number for number."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.maintain.group_columns import (
    CAPTION,
    EMBEDDING,
    added_columns,
    said_alike,
    said_of_joined,
    source_of,
)
from cache.maintain.joined_columns import PlacedGroup, Selection, joined_column, taken
from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError
from cache.store.column_lines import LEFT_OUT, made_from
from cache.store.hdf5_columns import BLOBS, Column, map_columns, texts
from cache.store.journal import RowGroup
from cache.store.journal_lines import CAPTIONS, KEYS, SAMPLES, FileLine
from cache.store.manifest import Manifest
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import REPAIR
from cache.store.row_group import GroupKeys, claim_group, write_column, write_keys
from cache.store.tar_rows import TarRow, TarRows
from cache.store.webdataset import TarContent, rows_of_group, write_tar_rows

# The picture of every row.
Pictures = Callable[[GroupKeys], Iterable[TarContent]]
# What the line of a copied column remembers: the files that it was copied from.
COPIED = "copied_from"


@dataclass(frozen=True, kw_only=True)
class Copy:
    """Where rows come from and go to: two cache folders, which may be one.

    ``manifest`` is the source's; its columns are those of ``out`` too. ``to_tar``: they are written beside
    pictures. ``pictures`` gives those of a tar
    whose source has none.
    """

    source: Path
    manifest: Manifest
    out: Path
    to_tar: bool
    pictures: Pictures | None = None


def check_sound(cache: Path, groups: Iterable[RowGroup]) -> None:
    """Make sure that every file of some groups is what was written: a copy gets a checksum of its own.

    Raises
    ------
    UserError
        If one is not.
    """
    for group in groups:
        if odd := next((line for line in group.lines.values() if not line.is_sound(cache)), None):
            raise UserError(f"{cache / odd.file} differs from its checksum", fix=REPAIR)


def write_copy(copy: Copy, rows: Selection, *, about: Mapping[str, Any] | None = None) -> list[FileLine]:
    """Write a selection of rows as a new row group; return its lines, that of the keys last.

    Raises
    ------
    UserError
        If a file is damaged, a picture is not to be had or another, or the group cannot be written.
    """
    groups = [one.group for one in rows.placed]
    name = claim_group(copy.out, rows.keys.split)
    of_keys = {**said_alike([group.keys for group in groups]), **(about or {})}
    of_rows = row_columns(copy, groups)
    beside = beside_columns(copy, groups)
    lines: list[FileLine] = []
    if copy.to_tar:
        arrays = {column: _array(rows, column) for column in of_rows}
        lines = write_tar_rows(copy.out, name, rows.keys, arrays, _contents(copy, rows), of_keys)
        keys = lines.pop()
    else:
        keys = write_keys(copy.out, name, rows.keys, of_keys)
        for column in of_rows:
            if column not in beside:  # it lies in the tar
                lines.append(_from_tar(copy, rows, keys, column))
    lines += [write_added(copy, keys, rows.placed, column) for column in beside]
    return [*lines, keys]


def write_added(copy: Copy, keys: FileLine, placed: Sequence[PlacedGroup], column: str) -> FileLine:
    """Write a column of the group with these ``keys``, of the rows that the source has in files."""
    having = [one for one in placed if source_of(copy.source, copy.manifest, one.group, column) is not None]
    lines, listed = [one.group.lines[column] for one in having], copy.manifest.columns.get(column)
    datasets = joined_column(copy.source, having, column, rows=keys.rows)
    about = said_of_joined(lines, datasets)
    has_place = np.concatenate([one.places[one.places >= 0] for one in having])
    if "row" not in datasets and len(has_place) < keys.rows:
        about[LEFT_OUT] = np.setdiff1d(np.arange(keys.rows), has_place).tolist()
    if copy.out != copy.source:
        about[COPIED] = copied_from(copy, placed, column)
    return write_column(
        copy.out,
        keys.group,
        column,
        datasets,
        rows=keys.rows,
        made_from=made_from(listed.settings, keys, about.get("of", "")) if listed else lines[0].made_from,
        about=about,
    )


def beside_columns(copy: Copy, groups: Sequence[RowGroup]) -> list[str]:
    """Return the columns that a copy has in files of their own."""
    beside = added_columns(copy.source, copy.manifest, groups)
    of_rows = row_columns(copy, groups) if copy.to_tar else ()
    # Imported captions lie in both.
    return [column for column in beside if column not in of_rows or column == CAPTIONS]


def copied_from(copy: Copy, placed: Sequence[PlacedGroup], column: str) -> str:
    """Return what names the files of a column that groups have."""
    return digest([one.group.lines[column].sha256 for one in placed if column in one.group.lines])


def row_columns(copy: Copy, groups: Sequence[RowGroup]) -> list[str]:
    """Return the columns that are written with the rows themselves: those that a tar has, or would have."""
    first = groups[0]
    if SAMPLES in first.lines:
        return list(TarRows.of(copy.source, first).columns)
    return sorted(first.lines.keys() - {KEYS, *copy.manifest.columns})


def _array(rows: Selection, column: str) -> MappedRows:
    """Return a column of the rows, in their order, wherever it lies; read when asked for."""
    return MappedRows([rows_of_group(rows.source, one.group, column) for one in rows.placed], rows.order)


def has_rows(source: Path, group: RowGroup, column: str) -> bool:
    """Say whether a group has rows of a column, in a file or in its tar."""
    return column in group.lines or (SAMPLES in group.lines and column in TarRows.of(source, group).columns)


def _from_tar(copy: Copy, rows: Selection, keys: FileLine, column: str) -> FileLine:
    arrays = [rows_of_group(rows.source, one.group, column) for one in rows.placed]
    own = taken(arrays, rows.order, np.arange(keys.rows), rows=keys.rows)
    datasets: dict[str, Column] = {EMBEDDING: own}
    if column == CAPTIONS:
        datasets[CAPTION] = texts([content.caption or "" for content in _of_tars(rows, pictures=False)])
    return write_column(copy.out, keys.group, column, datasets, rows=keys.rows)


def _contents(copy: Copy, rows: Selection) -> Iterable[TarContent]:
    """Return the picture and the caption of every row, in their order."""
    captions = _captions(rows)
    pictures: Iterable[TarContent]
    if all(SAMPLES in one.group.lines for one in rows.placed):
        has_pictures = all(TarRows.of(rows.source, one.group).pictures for one in rows.placed)
        pictures = _of_tars(rows, pictures=has_pictures)
        if captions is None:
            return pictures
    else:
        pictures = copy.pictures(rows.keys) if copy.pictures else [TarContent()] * len(rows.keys)
        captions = captions or [None] * len(rows.keys)
    return (
        TarContent(caption=caption, picture=content.picture, ending=content.ending)
        for caption, content in zip(captions, pictures, strict=True)
    )


def _captions(rows: Selection) -> Sequence[str | None] | None:
    """Return the captions that lie in files, None for imported rows; None where not all groups have them."""
    if not all(CAPTIONS in one.group.lines for one in rows.placed):
        return None
    files = [rows.source / one.group.lines[CAPTIONS].file for one in rows.placed]
    blobs = [map_columns(file, {CAPTION: BLOBS})[CAPTION] for file in files]
    joined = MappedRows(blobs, rows.order)
    raw = (bytes(joined[row]) for row in range(len(joined)))
    return [text.decode("utf-8", "surrogateescape") or None for text in raw]


def _of_tars(rows: Selection, *, pictures: bool) -> Iterator[TarContent]:
    """Yield the content of every row from the tars that they lie in, each read from front to end."""
    # A tar has its rows in the order of their keys' hashes, as the new one: so they are merged.
    streams = [_placed(rows.source, one, pictures) for one in rows.placed]
    for place, (at, row) in enumerate(heapq.merge(*streams, key=lambda one: one[0])):
        key = rows.keys.keys[place]
        if at != place or row.key != key:
            raise UserError(f"the tars of {rows.source} are not in the order of their keys", fix=REPAIR)
        ending = key.rpartition(".")[2].lower() if pictures else ""
        yield TarContent(caption=row.caption, picture=row.picture, ending=ending)


def _placed(source: Path, one: PlacedGroup, pictures: bool) -> Iterator[tuple[int, TarRow]]:
    places: NDArray[np.int64] = one.places
    for row in TarRows.of(source, one.group).samples(pictures=pictures):
        if places[row.row] >= 0:
            yield int(places[row.row]), row
