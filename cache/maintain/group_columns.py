"""The columns of a row group that are as the manifest says, and what is said of them when rows are joined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.maintain.column_files import ROW, ColumnFile
from cache.runtime.atomic_files import digest
from cache.sources.class_texts import MISSING_CAPTION, name_of_captions
from cache.store.column_lines import FILE, LEFT_OUT, MISSING, OF, TRUNCATED, count_of, is_current
from cache.store.hdf5_columns import Blobs, Column
from cache.store.journal import RowGroup
from cache.store.journal_lines import KEYS, SAMPLES, FileLine
from cache.store.manifest import Manifest

# What is said of one group and is not true of several.
_OF_ONE = {"digests", "unit", "index", "columns", "pictures", OF, LEFT_OUT, MISSING, TRUNCATED}
# What a column is made from may be a matter of the group's own rows: which of them, or the text of each.
_SOME, _TEXTS = "some of its rows", "its texts"
CAPTION, EMBEDDING = "caption", "embedding"


def source_of(cache: Path, manifest: Manifest, group: RowGroup, column: str) -> str | None:
    """Return what a column was made from beside settings and keys; None where there is none that is sound."""
    line, listed = group.lines.get(column), manifest.columns.get(column)
    if line is None or (listed is not None and not is_current(group, column, listed.settings)):
        return None
    if column == SAMPLES:
        return str(line.about.get("columns"))
    of = str(line.about.get(OF, ""))
    if not of or of == line.about.get(FILE):
        return of
    file = ColumnFile.open(cache, line)
    return _SOME if file.has_row else _TEXTS if CAPTION in file.datasets else of


def make_of(cache: Path, manifest: Manifest, group: RowGroup) -> frozenset[tuple[str, str]]:
    """Return the columns of a group and what each was made from; groups that have it in common are joined.

    Columns of some rows alone are left out: of a group without one there may be no such rows.
    """
    sources = {column: source_of(cache, manifest, group, column) for column in group.lines}
    return frozenset((name, of) for name, of in sources.items() if of is not None and of != _SOME)


def added_columns(cache: Path, manifest: Manifest, groups: Sequence[RowGroup]) -> list[str]:
    """Return the columns of some groups that lie in files of their own, beside keys and tars."""
    names = dict.fromkeys(column for group in groups for column in group.lines)
    return [
        column
        for column in names
        if column not in (KEYS, SAMPLES)
        and any(source_of(cache, manifest, group, column) is not None for group in groups)
    ]


def said_alike(lines: Sequence[FileLine]) -> dict[str, Any]:
    """Return what some lines say alike, such as batch size and device."""
    return {
        name: value
        for name, value in lines[0].about.items()
        if name not in _OF_ONE and all(line.about.get(name) == value for line in lines)
    }


def said_of_joined(lines: Sequence[FileLine], datasets: Mapping[str, Column]) -> dict[str, Any]:
    """Return what a joined column was made from, and what is counted of it, as a line remembers it."""
    about, of = said_alike(lines), lines[0].about.get(OF, "")
    if MISSING in lines[0].about:
        blobs = datasets[CAPTION]
        assert isinstance(blobs, Blobs)
        texts = [raw.decode("utf-8", "surrogateescape") for raw in blobs.items]
        truncated = sum(count_of(line, TRUNCATED) for line in lines)
        about |= {MISSING: texts.count(MISSING_CAPTION), TRUNCATED: truncated}
        of = of if of == lines[0].about.get(FILE) else name_of_captions(texts)
    elif of and ROW in datasets:
        of = digest(np.asarray(datasets[ROW]).tolist())
    return {**about, **({OF: of} if of else {})}
