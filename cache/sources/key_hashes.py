"""Hashes of keys: rows are found by them and lie in their order, and chunks of a folder are cut by them."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def hash_of_key(key: str) -> int:
    """Return a key's hash: the first 64 bits of its BLAKE2b, the same on every machine."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def hashes_of(keys: Iterable[str]) -> NDArray[np.uint64]:
    """Return the hash of every key, uint64 [n]."""
    return np.fromiter(map(hash_of_key, keys), dtype=np.uint64)


def positions(among: NDArray[np.uint64], wanted: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Return where each wanted hash first is among sorted ones, int64; -1 for one that is not."""
    if not len(among):
        return np.full(len(wanted), -1, dtype=np.int64)
    at = np.minimum(np.searchsorted(among, wanted), len(among) - 1)
    return np.where(among[at] == wanted, at, -1)
