"""Hashes of keys: rows are found by them, and their order is that of a split's rows."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray


def hash_of_key(key: str) -> int:
    """Return a key's hash: the first 64 bits of its BLAKE2b, the same on every machine."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


def hashes_of(keys: Sequence[str]) -> NDArray[np.uint64]:
    """Return the hash of every key, uint64 [n]."""
    return np.fromiter(map(hash_of_key, keys), dtype=np.uint64, count=len(keys))
