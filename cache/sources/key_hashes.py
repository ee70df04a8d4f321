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
