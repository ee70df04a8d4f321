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


def unchanged_since(cache: Path, split: str, chunks: Sequence[Chunk]) -> bool:
    """Say whether the chunks of a split are those of the last time that it was done."""
    try:
        before = json.loads(_path(cache, split).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return bool(before == _table(chunks))


def keep_chunks(cache: Path, split: str, chunks: Sequence[Chunk]) -> None:
    """Keep what the chunks of a split are, which is wholly done."""
    if not unchanged_since(cache, split, chunks):
        write_json(_path(cache, split), _table(chunks))


def forget_chunks(cache: Path, splits: Iterable[str]) -> None:
    """Have splits listed at the next run, whatever they are then."""
    for split in splits:
        _path(cache, split).unlink(missing_ok=True)


def _table(chunks: Sequence[Chunk]) -> dict[str, str]:
    return {chunk.id: chunk.identity for chunk in chunks}


def _path(cache: Path, split: str) -> Path:
    return cache / FOLDER / f"{split}.chunks.json"
