"""Sources whose chunks are listed whole: a tar, a row group of parquet, some thousand lines of a list."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from cache.sources.accounts import Account, Reason
from cache.sources.chunk_looks import ChunkListing, looks_in_threads, pack, unpack
from cache.sources.key_hashes import hashes_of, positions
from cache.sources.pictures import PictureSample
from cache.sources.samples import Chunk, Listed

# Who lists a chunk reads it next: so many are kept as they are. All are kept as bytes, some 30 a sample,
# while they are not more than these.
CHUNKS_KEPT, BYTES_KEPT = 4, 2**28


class ListedChunks(ABC):
    """A source that says of each chunk what is in it: all else follows from that.

    Picklable and small: what is listed stays in the process that has listed it. Who derives from it sets
    ``split``, ``classes`` and ``multi_label``, and may call :meth:`settle`, which also says whether it
    ``is_empty``, at no cost.
    """

    split: str
    classes: tuple[str, ...]
    multi_label: bool = False

    def __init__(self) -> None:
        # Copies of one source share them.
        self._token = uuid4().hex
        self._listings = _Listings()
        self.is_empty = False
        self._doubles = _Doubles.none()

    @abstractmethod
    def chunks(self) -> Sequence[Chunk]:
        """Return all chunks, at the cost of one look at each file of several samples."""

    @abstractmethod
    def listing(self, chunk: str) -> ChunkListing:
        """List a chunk, by reading what it has beside its pictures; UserError where that cannot be read."""

    def settle(self, *, threads: int = 1) -> None:
        """List all chunks once: samples of a key that an earlier chunk has are left out from now on.

        The classes of all samples become those of the source; where it has some, it is not the pool, and no
        sample has several, those without a label are left out.
        """
        ids = [chunk.id for chunk in self.chunks()]
        looks = looks_in_threads(self, ids, threads)
        labels: set[tuple[str, ...]] = set()
        hashes = []
        for id, look in zip(ids, looks, strict=True):
            self._listings.keep(id, look.packed)
            labels |= look.labels
            hashes.append(look.hashes)
        self.classes = tuple(sorted({name for own in labels for name in own}))
        self.multi_label = any(len(own) > 1 for own in labels)
        self._doubles = _Doubles.of(ids, hashes)
        # Of each key that is there twice the first stays, and where one has a label there are classes.
        self.is_empty = not any(map(len, hashes))

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
        listing = self._listings.of(self, chunk)
        listing = self._doubles.without(listing, chunk)
        if self.classes and not self.multi_label:
            listing = _labelled(listing)
        return listing

    @cached_property
    def _index(self) -> _Index:
        chunks = [chunk.id for chunk in self.chunks()]
        return _Index.of(chunks, (self._listed(chunk) for chunk in chunks))

    def __getstate__(self) -> dict[str, object]:
        return {name: value for name, value in vars(self).items() if name != "_index"}


def _labelled(listing: ChunkListing) -> ChunkListing:
    """Return a listing without its samples that have no label."""
    bare = [sample for sample in listing.samples if not sample.labels]
    return _without(listing, bare, Reason.NO_LABEL) if bare else listing


def _without(listing: ChunkListing, samples: Sequence[PictureSample], reason: Reason) -> ChunkListing:
    gone = {sample.key for sample in samples}
    return ChunkListing(
        samples=tuple(sample for sample in listing.samples if sample.key not in gone),
        account=listing.account + Account.of((reason, sample.where) for sample in samples),
    )


class _Listings:
    """What a process has listed of a source; another process, to which it is sent, begins anew."""

    def __init__(self) -> None:
        self._packed: dict[str, bytes] = {}
        self._bytes = 0
        self._last: dict[str, ChunkListing] = {}

    def __reduce__(self) -> tuple[type[_Listings], tuple[()]]:
        return _Listings, ()

    def of(self, source: ListedChunks, chunk: str) -> ChunkListing:
        """Return the listing of a chunk."""
        listing = self._last.get(chunk)
        if listing is not None:
            return listing
        packed = self._packed.get(chunk)
        if packed is not None:
            listing = unpack(packed)
        else:
            listing = source.listing(chunk)
            self.keep(chunk, pack(listing))
        # Threads may do this at once: then more are forgotten than need be.
        while len(self._last) >= CHUNKS_KEPT:
            self._last.pop(next(iter(self._last), ""), None)
        self._last[chunk] = listing
        return listing

    def keep(self, chunk: str, packed: bytes) -> None:
        """Keep a listing that is packed, while there is room."""
        if self._bytes + len(packed) <= BYTES_KEPT:
            self._packed[chunk] = packed
            self._bytes += len(packed)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Doubles:
    """Keys that several chunks have: ``hashes`` sorted, uint64 [n], and the first ``chunk``, int32 [n]."""

    ids: Sequence[str]
    hashes: NDArray[np.uint64]
    chunk: NDArray[np.int32]

    @classmethod
    def none(cls) -> _Doubles:
        return cls(ids=(), hashes=np.empty(0, np.uint64), chunk=np.empty(0, np.int32))

    @classmethod
    def of(cls, ids: Sequence[str], hashes: Sequence[NDArray[np.uint64]]) -> _Doubles:
        """Return those of chunks with these hashes; within a chunk each is there once."""
        joined = np.concatenate([np.empty(0, np.uint64), *hashes])
        chunk = np.repeat(np.arange(len(ids), dtype=np.int32), [len(own) for own in hashes])
        order = np.argsort(joined, kind="stable")
        joined, chunk = joined[order], chunk[order]
        again = joined[1:] == joined[:-1]
        # Of each run of one hash the first.
        first = np.flatnonzero(again & ~np.concatenate([[False], again[:-1]])[: len(again)])
        return cls(ids=ids if len(first) else (), hashes=joined[first], chunk=chunk[first])

    def without(self, listing: ChunkListing, chunk: str) -> ChunkListing:
        """Return the listing of a chunk without the keys that an earlier one has."""
        if not len(self.hashes):
            return listing
        at = positions(self.hashes, hashes_of(sample.key for sample in listing.samples))
        other = [at >= 0 and self.ids[self.chunk[at]] != chunk for at in at.tolist()]
        gone = [sample for sample, is_gone in zip(listing.samples, other, strict=True) if is_gone]
        return _without(listing, gone, Reason.DUPLICATE) if gone else listing


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
