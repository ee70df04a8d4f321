"""What the chunks of a split were when it was last wholly done: ``index/SPLIT.chunks.json``.

Where they are the same again nothing of the split has to be listed. The file may be removed: then it is.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from cache.runtime.atomic_files import write_json
from cache.sources.samples import Chunk
from cache.store.key_index import FOLDER


def rows_when_done(cache: Path, split: str, chunks: Sequence[Chunk]) -> int | None:
    """Return how many samples a split had when it was last wholly done; None if its chunks are others now."""
    try:
        before = json.loads(_path(cache, split).read_text(encoding="utf-8"))
        same, rows = before["chunks"] == _table(chunks), before["rows"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return rows if same and isinstance(rows, int) else None


def keep_chunks(cache: Path, split: str, chunks: Sequence[Chunk], rows: int) -> None:
    """Keep what the chunks of a split are, which is wholly done, and how many samples it has."""
    if rows_when_done(cache, split, chunks) != rows:
        write_json(_path(cache, split), {"chunks": _table(chunks), "rows": rows})


def forget_chunks(cache: Path, splits: Iterable[str]) -> None:
    """Have splits listed at the next run, whatever they are then."""
    for split in splits:
        _path(cache, split).unlink(missing_ok=True)


def _table(chunks: Sequence[Chunk]) -> dict[str, str]:
    return {chunk.id: chunk.identity for chunk in chunks}


def _path(cache: Path, split: str) -> Path:
    return cache / FOLDER / f"{split}.chunks.json"
