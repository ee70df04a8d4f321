"""The formats a shard can have, behind one small interface."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cache import shards_hdf5, shards_webdataset
from cache.rows import ShardRows


class WriteShard(Protocol):
    """Writes ``rows`` to ``path``; ``images`` are the rows' picture files, for a format that keeps them."""

    def __call__(self, path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None: ...


class ReadShard(Protocol):
    """Reads the rows of ``path``; UserError when it is damaged."""

    def __call__(self, path: Path) -> ShardRows: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFormat:
    """How one format names, writes and reads a shard."""

    ending: str
    write: WriteShard
    read: ReadShard


FORMATS = {
    "hdf5": ShardFormat(ending="h5", write=shards_hdf5.write, read=shards_hdf5.read),
    "webdataset": ShardFormat(ending="tar", write=shards_webdataset.write, read=shards_webdataset.read),
}

__all__ = ["FORMATS", "ShardFormat", "ShardRows"]
