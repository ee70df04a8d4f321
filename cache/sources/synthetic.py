"""Pictures of no file, each drawn from its key and a seed: for benchmarks and tests, however many rows."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, ClassVar

import numpy as np
from PIL import Image

from cache.sources.accounts import Account
from cache.sources.samples import Chunk, Listed
from cache.sources.splits import POOL

CHUNK_ROWS = 65_536
# Keys are CLASS/NUMBER of so many digits, so that sorted by key is sorted by class, then by number.
CLASS_DIGITS, ROW_DIGITS = 5, 9
# A picture is a coarse one of so many pixels a side, enlarged: teachers tell those apart, and noise hardly.
COARSE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class SyntheticSample:
    """One picture: its key, its size in pixels a side, and the seed that it is drawn from."""

    key: str
    side: int
    seed: int
    views: ClassVar[tuple[str, ...]] = ("image",)
    caption: ClassVar[None] = None

    @property
    def labels(self) -> tuple[str, ...]:
        """Its class; none in a pool, whose keys have no folder."""
        return (self.key.partition("/")[0],) if "/" in self.key else ()

    @property
    def where(self) -> str:
        """The key and the seed."""
        return f"the picture {self.key} of the seed {self.seed}"

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the picture, RGB; the same for the same key, size and seed on every machine."""
        rng = np.random.default_rng(int(self.identity()[0], 16))
        coarse = Image.fromarray(rng.integers(0, 256, size=(COARSE, COARSE, 3), dtype=np.uint8))
        return (coarse.resize((self.side, self.side), Image.Resampling.BILINEAR),)

    def content(self) -> bytes:
        """Return that there is no file."""
        return b""

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256 of what it is drawn from, the bytes of its pixels, the seed)."""
        return sha256(f"{self.seed} {self.side} {self.key}".encode()).hexdigest(), *self.status()

    def status(self) -> tuple[int, int]:
        """Return the bytes of its pixels, and the seed for a time."""
        return 3 * self.side**2, self.seed


class SyntheticSource:
    """``rows`` pictures, of each of ``classes`` in turn, of none in a pool; a chunk is as many in a row.

    More rows leave the keys, pictures and full chunks of fewer as they are. Nothing is listed before it is
    asked for: a source of any size is made at once.
    """

    multi_label = False

    def __init__(self, split: str, *, rows: int, classes: int, side: int = 224, seed: int = 0) -> None:
        least = 0 if split == POOL else 1
        if not (
            0 <= rows < 10**ROW_DIGITS and least <= classes < 10**CLASS_DIGITS and side > 0 and seed >= 0
        ):
            raise ValueError(f"no source of {rows} rows of {classes} classes, {side} pixels and seed {seed}")
        self.split, self.rows, self.side, self.seed = split, rows, side, seed
        self.classes = tuple(f"{number:0{CLASS_DIGITS}d}" for number in range(classes))
        self._folders = self.classes or ("",)

    def __reduce__(self) -> tuple[Any, ...]:
        return _source, (self.split, self.rows, len(self.classes), self.side, self.seed)

    def __len__(self) -> int:
        return self.rows

    def chunks(self) -> Sequence[Chunk]:
        """Return the chunks; the identity of each is a function of its numbers."""
        return [self._chunk(start) for start in range(0, self.rows, CHUNK_ROWS)]

    def list(self, chunk: str) -> Iterator[Listed]:
        """Yield the rows of a chunk by key."""
        size = 3 * self.side**2
        for name, numbers in self._numbers(self._rows_of(chunk)):
            labels = (name,) if name else ()
            for number in numbers:
                yield Listed(_key(name, number), labels, size, self.seed)

    def read(self, chunk: str, keys: Container[str] | None = None) -> Iterator[SyntheticSample]:
        """Yield the samples of a chunk by key, of ``keys`` alone where there are any."""
        for key in self._keys(self._rows_of(chunk)):
            if keys is None or key in keys:
                yield self._sample(key)

    def account(self) -> Account:
        """Return that nothing is left out."""
        return Account()

    def samples(self, keys: Sequence[str]) -> Iterator[SyntheticSample]:
        """Yield samples in the order of keys; KeyError for one that is not in this source."""
        for key in keys:
            number = key.rpartition("/")[2]
            row = int(number) if number.isascii() and number.isdigit() else self.rows
            if row >= self.rows or key != self._key(row):
                raise KeyError(key)
            yield self._sample(key)

    def all(self) -> tuple[SyntheticSample, ...]:
        """Return every sample, sorted by key."""
        return tuple(map(self._sample, self._keys(range(self.rows))))

    def _sample(self, key: str) -> SyntheticSample:
        return SyntheticSample(key=key, side=self.side, seed=self.seed)

    def _chunk(self, start: int) -> Chunk:
        rows = range(start, min(start + CHUNK_ROWS, self.rows))
        settings = [rows.start, rows.stop, len(self.classes), self.side, self.seed]
        identity = sha256(repr(settings).encode()).hexdigest()
        return Chunk(id=f"{start // CHUNK_ROWS:05d}", identity=identity)

    def _rows_of(self, chunk: str) -> range:
        start = int(chunk) * CHUNK_ROWS
        return range(start, min(start + CHUNK_ROWS, self.rows))

    def _key(self, row: int) -> str:
        return _key(self._folders[row % len(self._folders)], row)

    def _keys(self, rows: range) -> Iterator[str]:
        for name, numbers in self._numbers(rows):
            for number in numbers:
                yield _key(name, number)

    def _numbers(self, rows: range) -> Iterator[tuple[str, range]]:
        """Yield each class that some rows are of, '' for none, and its numbers among them."""
        count = len(self._folders)
        for number, name in enumerate(self._folders):
            first = rows.start + (number - rows.start) % count
            if first < rows.stop:
                yield name, range(first, rows.stop, count)


def _key(folder: str, row: int) -> str:
    return f"{folder}/{row:0{ROW_DIGITS}d}" if folder else f"{row:0{ROW_DIGITS}d}"


def _source(split: str, rows: int, classes: int, side: int, seed: int) -> SyntheticSource:
    return SyntheticSource(split, rows=rows, classes=classes, side=side, seed=seed)
