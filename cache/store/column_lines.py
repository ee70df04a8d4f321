"""What a column file was made from, as its line in the journal says it: one that is stale is never read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cache.runtime.atomic_files import digest
from cache.sources.splits import MAIN_TEACHER
from cache.store.hdf5_columns import Forms, map_columns
from cache.store.journal import RowGroup
from cache.store.journal_lines import FileLine
from cache.store.read_errors import reading

# What a line remembers: what else than settings and keys a column was made from, and the rows that were
# removed when it was made, which have nothing in it.
OF, LEFT_OUT = "of", "left_out"
# Of captions: their file, how many images have none of their own, how many were cut.
FILE, MISSING, TRUNCATED = "captions", "captions_missing", "captions_truncated"


def column_name(column: str, teacher: str = MAIN_TEACHER) -> str:
    """Return the name of a teacher's column: an added one's begins with its name."""
    return column if teacher == MAIN_TEACHER else f"{teacher}.{column}"


def made_from(settings: Mapping[str, Any], keys: FileLine, of: str = "") -> str:
    """Return the digest of what a group's column is made from: settings, the group's keys, and what else."""
    return digest([settings, keys.sha256, of])


def is_current(group: RowGroup, column: str, settings: Mapping[str, Any], *, of: str | None = None) -> bool:
    """Say whether a group has a column, made by these settings and of all rows that are seen.

    ``of`` is what else it should be made from; None takes the line's own word for it.
    """
    line = group.lines.get(column)
    if line is None:
        return False
    own = line.about.get(OF, "")
    if own != (own if of is None else of) or line.made_from != made_from(settings, group.keys, own):
        return False
    # What came back since has no row in it.
    return group.removed.issuperset(left_out_of(line))


def left_out_of(line: FileLine) -> frozenset[int]:
    """Return the rows that were removed when a column was made."""
    rows = line.about.get(LEFT_OUT, [])
    whole = isinstance(rows, (list, tuple)) and all(isinstance(row, int) for row in rows)
    # Of a line that somebody else wrote: then it fits no group.
    return frozenset(rows) if whole else frozenset({-1})


def count_of(line: FileLine, name: str) -> int:
    """Return a number that a line remembers; 0 where it has none such."""
    count = line.about.get(name, 0)
    return count if isinstance(count, int) else 0


def map_listed(cache: Path, line: FileLine, forms: Forms, *, rows: int) -> dict[str, Any]:
    """Map datasets of a column file, of so many rows each; see :func:`map_columns`.

    UserError where the file is missing, damaged, or of another number of rows.
    """
    path = cache / line.file
    with reading(path, size=line.bytes):
        arrays = map_columns(path, forms)
        for name, values in arrays.items():
            if len(values) != rows:
                raise ValueError(f"{name} holds {len(values):,} rows of {rows:,}")
    return arrays


def lacking(
    groups: Iterable[RowGroup], column: str, settings: Mapping[str, Any], *, of: str | None = None
) -> int:
    """Return how many rows that are seen lie in groups that lack a column, made by these settings."""
    return sum(group.live for group in groups if not is_current(group, column, settings, of=of))
