"""The image files that rows were made from, as they were then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.store.shard_rows import ShardRows

HASH_BYTES = 32
UNKNOWN = bytes(HASH_BYTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFiles:
    """The files of N rows as they were when the rows were made.

    ``sha256`` uint8 [N, 32] is of their content, zeros where nobody knows (rows that were made elsewhere);
    ``bytes`` and ``mtime_ns`` int64 [N] are cheap to compare.
    """

    sha256: NDArray[np.uint8]
    bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]

    @classmethod
    def of(cls, rows: ShardRows) -> ImageFiles:
        """Return those of one shard."""
        hashes = b"".join(map(hash_of, rows.file_sha256))
        return cls(
            sha256=np.frombuffer(hashes, dtype=np.uint8).reshape(-1, HASH_BYTES),
            bytes=rows.file_bytes,
            mtime_ns=rows.file_mtime_ns,
        )

    @classmethod
    def joined(cls, shards: Sequence[ImageFiles], order: NDArray[np.int64]) -> ImageFiles:
        """Return those of several shards; row i of the whole is row ``order[i]`` of their concatenation."""
        return cls(
            sha256=np.concatenate([shard.sha256 for shard in shards])[order],
            bytes=np.concatenate([shard.bytes for shard in shards])[order],
            mtime_ns=np.concatenate([shard.mtime_ns for shard in shards])[order],
        )


def hash_of(text: str) -> bytes:
    """Return a hexadecimal SHA-256 as bytes, zeros for none."""
    return bytes.fromhex(text) if text else UNKNOWN
