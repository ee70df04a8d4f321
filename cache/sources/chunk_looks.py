"""Chunks that are listed once by whoever opens a source, in one thread or several.

What a look brings back is small and packed, so that who asked for it has little to do.
"""

from __future__ import annotations

import pickle
import zlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cache.sources.accounts import NOTHING, Account
from cache.sources.key_hashes import hashes_of
from cache.sources.pictures import PictureSample


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkListing:
    """The samples of a chunk in its own order, and what was left out of it."""

    samples: tuple[PictureSample, ...]
    account: Account = NOTHING


class Lists(Protocol):
    """What says of each chunk what is in it."""

    def listing(self, chunk: str) -> ChunkListing:
        """List a chunk; UserError where it cannot be read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """A chunk that was listed: its listing, packed, the ``hashes`` of its n keys, uint64 [n], and labels."""

    packed: bytes
    hashes: NDArray[np.uint64]
    labels: frozenset[tuple[str, ...]]


def pack(listing: ChunkListing) -> bytes:
    """Return a listing in some 30 bytes a sample, for this process and those that it has begun."""
    return zlib.compress(pickle.dumps(listing, pickle.HIGHEST_PROTOCOL), 1)


def unpack(packed: bytes) -> ChunkListing:
    """Return the listing that :func:`pack` was given."""
    listing: ChunkListing = pickle.loads(zlib.decompress(packed))
    return listing


def look(source: Lists, chunk: str) -> Look:
    """List a chunk; UserError where it cannot be read."""
    listing = source.listing(chunk)
    return Look(
        packed=pack(listing),
        hashes=hashes_of(sample.key for sample in listing.samples),
        labels=frozenset(sample.labels for sample in listing.samples),
    )


def looks_in_threads(source: Lists, chunks: Sequence[str], threads: int) -> Iterator[Look]:
    """Yield a look at each of some chunks, in their order; UserError as :func:`look`."""
    with ThreadPoolExecutor(threads) as pool:
        # Not all at once: what is listed is more than what is kept of it.
        for first in range(0, len(chunks), threads):
            yield from pool.map(partial(look, source), chunks[first : first + threads])
