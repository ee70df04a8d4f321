"""Chunks of a source by the hash of its keys, so that a new key moves no other between chunks.

A chunk is the samples whose hash begins with some bits, and its id is those bits: ``01*``. One that would
hold more than :data:`MOST` is two, of one bit more.
"""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from cache.sources.samples import Chunk

# So that there are between half as many and as many in a chunk: seconds of decoding, and one list of names.
MOST = 8192
BITS = 64


@dataclass(frozen=True, slots=True)
class KeyChunks:
    """The chunks of N keys: their ``hashes`` sorted, uint64 [N], and the key that each is of, int64 [N]."""

    hashes: NDArray[np.uint64]
    order: NDArray[np.int64]

    @classmethod
    def of(cls, hashes: NDArray[np.uint64]) -> KeyChunks:
        """Return the chunks of keys of these hashes."""
        order = np.argsort(hashes, kind="stable")
        return cls(hashes[order], order)

    def ids(self) -> list[str]:
        """Return the ids of all chunks, in the order of their bits."""
        ids, left = [], [""] if len(self.hashes) else []
        while left:
            bits = left.pop()
            rows = self._rows(bits)
            if rows.stop - rows.start > MOST and len(bits) < BITS:
                left += [f"{bits}1", f"{bits}0"]
            elif rows.stop > rows.start:
                ids.append(f"{bits}*")
        return ids

    def keys(self, chunk: str) -> NDArray[np.int64]:
        """Return which keys are in a chunk: that of any bits, whether these keys are cut so or not."""
        return self.order[self._rows(chunk.removesuffix("*"))]

    def chunks(self, status: NDArray[np.int64]) -> list[Chunk]:
        """Return all chunks; ``status`` [N, k], bytes and times of each key's files, is in their identity."""
        chunks = []
        for chunk in self.ids():
            rows = self._rows(chunk.removesuffix("*"))
            keys = self.order[rows]
            table = np.column_stack([self.hashes[rows].view(np.int64), status[keys]])
            identity = sha256(table.astype("<i8").tobytes()).hexdigest()
            chunks.append(Chunk(id=chunk, identity=identity))
        return chunks

    def _rows(self, bits: str) -> slice:
        first = int(bits.ljust(BITS, "0"), 2)
        last = int(bits.ljust(BITS, "1"), 2)
        return slice(
            int(np.searchsorted(self.hashes, np.uint64(first), side="left")),
            int(np.searchsorted(self.hashes, np.uint64(last), side="right")),
        )
