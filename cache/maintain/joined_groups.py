"""Several row groups written as one, with every column that they have, and lines that say what of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cache.build.captions import FILE, MISSING, TRUNCATED, count_of, source_of_texts
from cache.maintain.column_files import ROW, ColumnFile
from cache.maintain.joined_columns import Part, joined_column, joined_keys, parts_of
from cache.runtime.atomic_files import digest
from cache.sources.class_texts import MISSING_CAPTION
from cache.store.column_lines import LEFT_OUT, OF, is_current, made_from
from cache.store.hdf5_columns import Blobs, Column
from cache.store.journal import KEYS, SAMPLES, FileLine, RowGroup
from cache.store.manifest import Manifest
from cache.store.row_group import claim_group, write_column, write_keys

# What is said of one group and is not true of several.
_OF_ONE = {"digests", "unit", OF, LEFT_OUT, MISSING, TRUNCATED}
# What a column is made from may be a matter of the group's own rows: which of them, or the text of each.
_SOME, _TEXTS = "some of its rows", "its texts"
CAPTION = "caption"


def own_columns(cache: Path, manifest: Manifest, group: RowGroup) -> dict[str, str]:
    """Return the columns of a group that are as the manifest says, and what else each was made from.

    Columns of some rows alone are left out: of a group without one there may be no such rows.
    """
    sources = {column: _source(cache, manifest, group, column) for column in group.lines}
    return {column: source for column, source in sources.items() if source is not None and source != _SOME}


def _source(cache: Path, manifest: Manifest, group: RowGroup, column: str) -> str | None:
    """Return what a column was made from beside settings and keys; None where there is none that is sound."""
    line, listed = group.lines.get(column), manifest.columns.get(column)
    if line is None or (listed is not None and not is_current(group, column, listed.settings)):
        return None
    of = str(line.about.get(OF, ""))
    if not of or of == line.about.get(FILE):
        return of
    file = ColumnFile.open(cache, line)
    return _SOME if file.has_row else _TEXTS if CAPTION in file.datasets else of


def write_joined(cache: Path, manifest: Manifest, groups: Sequence[RowGroup]) -> list[FileLine]:
    """Write a row group of the rows that are seen of some groups, which have the same :func:`own_columns`.

    Returns its lines, that of the keys last; UserError where a file is damaged.
    """
    parts = parts_of(groups)
    name = claim_group(cache, groups[0].split)
    keys = write_keys(cache, name, joined_keys(cache, parts), _common([group.keys for group in groups]))
    having: dict[str, list[Part]] = {}
    for part in parts:
        for column in part.group.lines:
            if column not in (KEYS, SAMPLES) and _source(cache, manifest, part.group, column) is not None:
                having.setdefault(column, []).append(part)
    return [*(_write(cache, manifest, keys, own, column) for column, own in having.items()), keys]


def _write(cache: Path, manifest: Manifest, keys: FileLine, parts: Sequence[Part], column: str) -> FileLine:
    lines, listed = [part.group.lines[column] for part in parts], manifest.columns.get(column)
    datasets = joined_column(cache, parts, column)
    about = {**_common(lines), **_joined_source(lines, datasets)}
    of = about.get(OF, "")
    return write_column(
        cache,
        keys.group,
        column,
        datasets,
        rows=keys.rows,
        made_from=made_from(listed.settings, keys, of) if listed else lines[0].made_from,
        about=about,
    )


def _common(lines: Sequence[FileLine]) -> dict[str, Any]:
    """Return what some lines say alike, such as batch size and device."""
    first = lines[0].about
    return {
        name: value
        for name, value in first.items()
        if name not in _OF_ONE and all(line.about.get(name) == value for line in lines)
    }


def _joined_source(lines: Sequence[FileLine], datasets: Mapping[str, Column]) -> dict[str, Any]:
    """Return what a joined column was made from, and what is counted of it, as a line remembers it."""
    about: dict[str, Any] = {}
    of = lines[0].about.get(OF, "")
    if MISSING in lines[0].about:
        blobs = datasets[CAPTION]
        assert isinstance(blobs, Blobs)
        texts = [raw.decode("utf-8", "surrogateescape") for raw in blobs.items]
        truncated = sum(count_of(line, TRUNCATED) for line in lines)
        about = {MISSING: texts.count(MISSING_CAPTION), TRUNCATED: truncated}
        of = of if of == lines[0].about.get(FILE) else source_of_texts(texts)
    elif of and ROW in datasets:
        of = digest(np.asarray(datasets[ROW]).tolist())
    return {**about, **({OF: of} if of else {})}
