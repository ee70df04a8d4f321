"""What image files hold now, beside what the rows of a cache were made from: by key and by content."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import CacheMismatch, some_of
from cache.store.row_group import UNKNOWN
from cache.store.split_rows import ImageFiles, SplitRows

if TYPE_CHECKING:
    from pathlib import Path

    from cache.sources.samples import Sample

# Files that one thread looks at in one go: they wait for the disk, which on a network is slow.
FILES_AT_ONCE = 512
THREADS = 16
GONE = (-1, -1)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contents:
    """What the files of N images hold now, beside what their rows were made from.

    ``row_of`` int64 [N] is each one's row, -1 for none. ``read`` are the SHA-256 of those files that were
    read, by the image's number, zeros for one that cannot be; every other is what its row was made from.
    ``changed`` are the keys of the images whose content is not that.
    """

    row_of: NDArray[np.int64]
    read: dict[int, bytes]
    changed: tuple[str, ...]


def contents_of(samples: Sequence[Sample], rows: SplitRows | None = None) -> Contents:
    """Look at the files of some images, of which those with a row in ``rows`` are joined to it by key.

    A file of the size and time that its row kept is not read; any other is, and so is one without a row.
    """
    starts = range(0, len(samples), FILES_AT_ONCE)
    files = rows.files if rows is not None else None  # opened before the threads ask for it
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        looks = list(
            pool.map(lambda start: _look(samples[start : start + FILES_AT_ONCE], rows, files), starts)
        )
    read = {start + i: own for start, look in zip(starts, looks, strict=True) for i, own in look.read.items()}
    return Contents(
        row_of=np.concatenate([np.empty(0, dtype=np.int64), *(look.row_of for look in looks)]),
        read=read,
        changed=tuple(key for look in looks for key in look.changed),
    )


def refuse_changed(changed: Sequence[str], *, split: str, data: Path, cache: Path) -> None:
    """Refuse images that are not what the rows of a cache were made from; CacheMismatch if there is one."""
    if changed:
        raise CacheMismatch(
            f"{len(changed)} images of {split} in {data} are not those that the rows of {cache} were made "
            f"from ({some_of(changed)})",
            fix="bring the images back, or make the cache of them: the same 'distill cache-features' command "
            "again, with --rebuild where it says so; for 'distill cache import' embed them again first.",
        )


def _look(samples: Sequence[Sample], rows: SplitRows | None, files: ImageFiles | None) -> Contents:
    """Look at a few files, one after the other."""
    row_of = np.full(len(samples), -1, dtype=np.int64)
    before = np.zeros((len(samples), len(UNKNOWN)), dtype=np.uint8)
    same = np.zeros(len(samples), dtype=bool)
    if rows is not None and files is not None:
        row_of = rows.find([sample.key for sample in samples])
        has_row = np.flatnonzero(row_of >= 0)
        own = row_of[has_row]
        before[has_row] = files.content[own]
        now = np.array([_status(samples[i]) for i in has_row.tolist()], dtype=np.int64).reshape(-1, 2)
        same[has_row] = (now[:, 0] == files.bytes[own]) & (now[:, 1] == files.mtime_ns[own])
    has_content = np.asarray(before.any(axis=1))
    read = {
        i: bytes.fromhex(samples[i].identity()[0]) or UNKNOWN
        for i in np.flatnonzero(~(same & has_content)).tolist()
    }
    changed = (samples[i].key for i, own in read.items() if has_content[i] and before[i].tobytes() != own)
    return Contents(row_of=row_of, read=read, changed=tuple(changed))


def _status(sample: Sample) -> tuple[int, int]:
    try:
        return sample.status()
    except OSError:
        return GONE
