"""Photos of one content: a copy of a test photo must not be learnt from."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256

import numpy as np

from cache.sources.places import is_remote, read_bytes

THREADS = 16


def copies(places: Sequence[str], ranks: Sequence[int]) -> list[tuple[int, int]]:
    """Return (a photo, that which it is a copy of) of all but one of each content, by their numbers.

    The one that stays is the first of the lowest rank. Only files of one size are read; what cannot be read,
    or lies on a server, is no copy.
    """
    with ThreadPoolExecutor(max_workers=THREADS) as pool:
        sizes = np.fromiter(pool.map(_size, places, chunksize=512), dtype=np.int64, count=len(places))
        _, where, counts = np.unique(sizes, return_inverse=True, return_counts=True)
        alike = np.flatnonzero((counts[where] > 1) & (sizes > 0)).tolist()
        contents = [*pool.map(_content, (places[i] for i in alike))]
    first: dict[bytes, int] = {}
    found = []
    for i, content in sorted(zip(alike, contents, strict=True), key=lambda pair: (ranks[pair[0]], pair[0])):
        if content and first.setdefault(content, i) != i:
            found.append((i, first[content]))
    return found


def _size(place: str) -> int:
    try:
        return -1 if is_remote(place) else os.stat(place).st_size
    except OSError:
        return -1


def _content(place: str) -> bytes:
    try:
        return sha256(read_bytes(place, 0, None)).digest()
    except OSError:
        return b""
