"""Sources whose chunks are listed whole: a tar, a row group of parquet, some thousand lines of a list."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from cache.sources.accounts import NOTHING, Account
from cache.sources.key_hashes import hashes_of, positions
from cache.sources.pictures import PictureSample
from cache.sources.samples import Chunk, Listed

# So many chunks' samples are kept in a process: who lists one reads it next.
CHUNKS_KEPT = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class ChunkListing:
    """The samples of a chunk in its own order, and what was left out of it."""

    samples: tuple[PictureSample, ...]
    account: Account = NOTHING


class ListedChunks(ABC):
    """A source that says of each chunk what is in it: all else follows from that.

    Picklable and small: what is listed stays in the process that has listed it. Who derives from it sets
    ``split``, ``classes`` and ``multi_label``.
    """

    split: str
    classes: tuple[str, ...]
    multi_label: bool = False

    def __init__(self) -> None:
        # Copies of one source share what a process has listed.
        self._token = uuid4().hex

    @abstractmethod
    def chunks(self) -> Sequence[Chunk]:
        """Return all chunks, at the cost of one look at each file of several samples."""

    @abstractmethod
    def listing(self, chunk: str) -> ChunkListing:
        """List a chunk, by reading what it has beside its pictures; UserError where that cannot be read."""

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield what is in a chunk, in its own order."""
        for sample in self._listed(chunk).samples:
            yield Listed(sample.key, sample.labels, sample.file_bytes, sample.mtime_ns)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[PictureSample]:
        """Yield the samples of a chunk in its own order, of ``keys`` alone where there are any."""
        return (s for s in self._listed(chunk).samples if keys is None or s.key in keys)

    def account(self) -> Account:
        """Return what is left out of all chunks."""
        return sum((account for _, account in self._index.looks), Account())

    def __len__(self) -> int:
        return len(self._index.hashes)

    def samples(self, keys: Sequence[str]) -> Iterator[PictureSample]:
        """Yield samples in the order of keys; KeyError for one that is not here."""
        chunk = self._index.chunk_of(keys)
        own: dict[str, PictureSample] = {}
        for number in np.unique(chunk).tolist():
            wanted = {keys[i] for i in np.flatnonzero(chunk == number).tolist()}
            own |= {sample.key: sample for sample in self.read(self._index.ids[number], wanted)}
        return (own[key] for key in keys)

    def all(self) -> tuple[PictureSample, ...]:
        """Return every sample, sorted by key."""
        samples = (sample for chunk in self._index.ids for sample in self.read(chunk))
        return tuple(sorted(samples, key=lambda sample: sample.key))

    def _listed(self, chunk: str) -> ChunkListing:
        return _listing_of(self._token, self, chunk)

    def __hash__(self) -> int:
        return hash(self._token)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ListedChunks) and other._token == self._token

    @cached_property
    def _index(self) -> _Index:
        chunks = [chunk.id for chunk in self.chunks()]
        return _Index.of(chunks, (self._listed(chunk) for chunk in chunks))

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_index"}


@lru_cache(maxsize=CHUNKS_KEPT)
def _listing_of(token: str, source: ListedChunks, chunk: str) -> ChunkListing:
    del token
    return source.listing(chunk)


@dataclass(frozen=True, kw_only=True)
class _Index:
    """In which chunk each of N keys is: their ``hashes`` sorted, uint64 [N], and ``chunk`` int32 [N]."""

    ids: Sequence[str]
    hashes: NDArray[np.uint64]
    chunk: NDArray[np.int32]
    looks: Sequence[tuple[int, Account]]

    @classmethod
    def of(cls, ids: Sequence[str], listings: Iterable[ChunkListing]) -> _Index:
        hashes, looks = [np.empty(0, dtype=np.uint64)], []
        for listing in listings:
            hashes.append(hashes_of(sample.key for sample in listing.samples))
            looks.append((len(listing.samples), listing.account))
        chunk = np.repeat(np.arange(len(looks), dtype=np.int32), [count for count, _ in looks])
        joined = np.concatenate(hashes)
        order = np.argsort(joined, kind="stable")
        return cls(ids=ids, hashes=joined[order], chunk=chunk[order], looks=looks)

    def chunk_of(self, keys: Sequence[str]) -> NDArray[np.int32]:
        """Return the number of each key's chunk; KeyError for one that is in none."""
        at = positions(self.hashes, hashes_of(keys))
        if (at < 0).any():
            raise KeyError(keys[int((at < 0).argmax())])
        return self.chunk[at]
