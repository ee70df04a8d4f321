"""Several sources as one split."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache.sources.accounts import Account
from cache.sources.key_hashes import hashes_of, positions
from cache.sources.samples import Chunk, Listed, Sample, Source


def joined(split: str, sources: Sequence[Source]) -> Source:
    """Return one or several sources as the source of a split."""
    if len(sources) > 1:
        return JoinedSource(split=split, parts=tuple(sources))
    (source,) = sources
    if source.split == split:
        return source
    source = copy.copy(source)
    source.split = split  # type: ignore[misc]
    return source


@dataclass(frozen=True, kw_only=True)
class JoinedSource:
    """The samples of several sources, one after the other; a chunk's id begins with its source's number."""

    split: str
    parts: tuple[Source, ...]

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes of all, sorted."""
        return tuple(sorted({name for one in self.parts for name in one.classes}))

    @property
    def multi_label(self) -> bool:
        """Whether a sample of one of them may have several classes, or none."""
        return any(one.multi_label for one in self.parts)

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def chunks(self) -> Sequence[Chunk]:
        """Return the chunks of all."""
        return [
            replace(chunk, id=f"{number}:{chunk.id}")
            for number, one in enumerate(self.parts)
            for chunk in one.chunks()
        ]

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield what is in a chunk, in its own order."""
        source, own = self._of(chunk)
        return source.list(own)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[Sample]:
        """Yield the samples of a chunk in its own order, of ``keys`` alone where there are any."""
        source, own = self._of(chunk)
        return source.read(own, keys)

    def account(self) -> Account:
        """Return what is left out of all."""
        return sum((one.account() for one in self.parts), Account())

    def samples(self, keys: Sequence[str]) -> Iterator[Sample]:
        """Yield samples in the order of keys; KeyError for one that is in no source."""
        at = positions(self._keys[0], hashes_of(keys))
        if (at < 0).any():
            raise KeyError(keys[int((at < 0).argmax())])
        part = self._keys[1][at]
        # Of each source all at once, then in the order of the keys.
        own = [
            one.samples([keys[i] for i in np.flatnonzero(part == n).tolist()])
            for n, one in enumerate(self.parts)
        ]
        return (next(own[number]) for number in part.tolist())

    def all(self) -> tuple[Sample, ...]:
        """Return every sample, sorted by key."""
        return tuple(sorted((s for one in self.parts for s in one.all()), key=lambda sample: sample.key))

    @cached_property
    def _keys(self) -> tuple[NDArray[np.uint64], NDArray[np.int32]]:
        """The hash of every key, sorted, uint64 [N], and the number of its source, int32 [N]."""
        hashes = [
            hashes_of(one.key for chunk in source.chunks() for one in source.list(chunk.id))
            for source in self.parts
        ]
        part = np.repeat(np.arange(len(hashes), dtype=np.int32), [len(own) for own in hashes])
        every = np.concatenate(hashes)
        order = np.argsort(every, kind="stable")
        return every[order], part[order]

    def __getstate__(self) -> dict[str, object]:
        return {"split": self.split, "parts": self.parts}

    def _of(self, chunk: str) -> tuple[Source, str]:
        number, _, own = chunk.partition(":")
        return self.parts[int(number)], own
