"""Several sources as one split."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass, replace

from cache.sources.accounts import Account
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
        return (self._sample(key) for key in keys)

    def all(self) -> tuple[Sample, ...]:
        """Return every sample, sorted by key."""
        return tuple(sorted((s for one in self.parts for s in one.all()), key=lambda sample: sample.key))

    def _sample(self, key: str) -> Sample:
        for one in self.parts:
            try:
                return next(iter(one.samples([key])))
            except KeyError:
                continue
        raise KeyError(key)

    def _of(self, chunk: str) -> tuple[Source, str]:
        number, _, own = chunk.partition(":")
        return self.parts[int(number)], own
