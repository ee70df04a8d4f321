"""The image files that rows were made from, as they were then."""

from __future__ import annotations

from dataclasses import dataclass

from cache.store.mapped_arrays import MappedRows


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFiles:
    """The files of N rows as they were when the rows were made, read when asked for.

    ``content`` uint8 [N, 32] is the SHA-256 of each, zeros where nobody knows (rows that were made
    elsewhere); ``bytes`` and ``mtime_ns`` int64 [N] are cheap to compare.
    """

    content: MappedRows
    bytes: MappedRows
    mtime_ns: MappedRows
