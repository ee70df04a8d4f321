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
from cache.store.image_files import HASH_BYTES, UNKNOWN, hash_of

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
    chunks = [samples[start : start + FILES_AT_ONCE] for start in range(0, len(samples), FILES_AT_ONCE)]
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        contents = list(pool.map(lambda chunk: [_content(sample, rows) for sample in chunk], chunks))
    hashes = b"".join(content for chunk in contents for content, _ in chunk)
    changes = [is_changed for chunk in contents for _, is_changed in chunk]
    return Contents(
        sha256=np.frombuffer(hashes, dtype=np.uint8).reshape(-1, HASH_BYTES),
        changed=tuple(r.key for r, is_changed in zip(samples, changes, strict=True) if is_changed),
    )


def changed_rows(one: SplitRows, other: SplitRows) -> tuple[str, ...]:
    """Return the keys of the images that two teachers' rows, of the same keys, were made from differently."""
    if one.files is None or other.files is None:
        return ()
    mine, theirs = one.files.sha256, other.files.sha256
    both = mine.any(axis=1) & theirs.any(axis=1)
    return tuple(one.keys[row] for row in np.flatnonzero(both & (mine != theirs).any(axis=1)))


def refuse_changed(changed: Sequence[str], *, split: str, data: Path, cache: Path) -> None:
    """Refuse images that are not what the rows of a cache were made from; CacheMismatch if there is one."""
    if changed:
        raise CacheMismatch(
            f"{len(changed)} images of {split} in {data} are not those that the rows of {cache} were made "
            f"from ({some_of(changed)})",
            fix="bring the images back, or make the cache of them: the same 'distill cache-features' command "
            "again, with --rebuild where it says so; for 'distill cache import' embed them again first.",
        )


def _content(sample: Sample, rows: SplitRows | None) -> tuple[bytes, bool]:
    """Return a file's hash, and whether it differs from that of its row."""
    row = rows.position.get(sample.key) if rows is not None else None
    if rows is None or row is None or rows.files is None:
        return hash_of(sample.identity()[0]), False
    files, before = rows.files, rows.files.sha256[row].tobytes()
    if before != UNKNOWN and looks_the_same(sample, int(files.bytes[row]), int(files.mtime_ns[row])):
        return before, False
    now = hash_of(sample.identity()[0])
    return now, before not in (UNKNOWN, now)


def looks_the_same(sample: Sample, size: int, mtime_ns: int) -> bool:
    """Say whether a file still has this size and modification time: then it is taken to be unchanged."""
    try:
        return sample.status() == (size, mtime_ns)
    except OSError:
        return False
