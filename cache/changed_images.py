"""What image files hold now, beside what the rows of a cache were made from: by key and by content."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.reader import SplitRows
from cache.runtime.errors import CacheMismatch, some_of
from cache.store.row_group import HASH_BYTES, UNKNOWN

if TYPE_CHECKING:
    from pathlib import Path

    from cache.sources.samples import Sample

# Files that one thread looks at in one go: they wait for the disk, which on a network is slow.
FILES_AT_ONCE = 512
THREADS = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What the files of N images hold now.

    ``sha256`` uint8 [N, 32], zeros for a file that cannot be read; ``changed`` are the keys of the images
    whose content is not what their row was made from.
    """

    sha256: NDArray[np.uint8]
    changed: tuple[str, ...]


def contents_of(samples: Sequence[Sample], rows: SplitRows | None = None) -> Contents:
    """Look at the files of some images, of which those with a row in ``rows`` are joined to it by key.

    A file of the size and time that its row kept is not read; any other is, and so is one without a row.
    """
    before, status = _as_rows_were(samples, rows)
    has_row = before.any(axis=1)
    now = before.copy()

    def look(start: int) -> None:
        for i in range(start, min(start + FILES_AT_ONCE, len(samples))):
            if not (has_row[i] and _looks_the_same(samples[i], *status[i].tolist())):
                now[i] = np.frombuffer(bytes.fromhex(samples[i].identity()[0]) or UNKNOWN, dtype=np.uint8)

    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        list(pool.map(look, range(0, len(samples), FILES_AT_ONCE)))
    changed = has_row & (now != before).any(axis=1)
    return Contents(sha256=now, changed=tuple(samples[i].key for i in np.flatnonzero(changed).tolist()))


def _as_rows_were(
    samples: Sequence[Sample], rows: SplitRows | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return the content of images when their rows were made, zeros where nobody knows, and (bytes, mtime)."""
    content = np.zeros((len(samples), HASH_BYTES), dtype=np.uint8)
    status = np.zeros((len(samples), 2), dtype=np.int64)
    if rows is not None and len(samples):
        at = rows.find([sample.key for sample in samples])
        has_row = at >= 0
        files, at = rows.files, at[has_row]
        content[has_row] = files.content[at]
        status[has_row] = np.stack([files.bytes[at], files.mtime_ns[at]], axis=1)
    return content, status


def refuse_changed(changed: Sequence[str], *, split: str, data: Path, cache: Path) -> None:
    """Refuse images that are not what the rows of a cache were made from; CacheMismatch if there is one."""
    if changed:
        raise CacheMismatch(
            f"{len(changed)} images of {split} in {data} are not those that the rows of {cache} were made "
            f"from ({some_of(changed)})",
            fix="bring the images back, or make the cache of them: the same 'distill cache-features' command "
            "again, with --rebuild where it says so; for 'distill cache import' embed them again first.",
        )


def _looks_the_same(sample: Sample, size: int, mtime_ns: int) -> bool:
    """Say whether a file still has this size and modification time: then it is taken to be unchanged."""
    try:
        return sample.status() == (size, mtime_ns)
    except OSError:
        return False
