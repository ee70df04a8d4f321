"""Which rows of which tars each process reads in an epoch, and in which order: numbers alone.

An epoch is ``repeats`` passes, each cut into steps by itself, so that no image meets its own copy. The tars
of a pass, in an order that is drawn, lie end to end. Each of several processes has one stretch of that, cut
again into *lanes*: the share that a process has of step s comes from its lane ``s % lanes``. So every process
takes the same number of steps, every row is seen once a pass, and how many workers read, of which each has
some lanes, changes nothing. A stretch begins and ends where it falls, within a tar.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from distill.data.batch import Share

T = TypeVar("T")
# Each lane has one tar open.
MOST_LANES = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """Rows ``start`` to ``stop`` of those of a tar that are trained on; ``turn`` is its place in an epoch."""

    tar: int
    turn: int
    start: int
    stop: int


@dataclass(frozen=True, kw_only=True)
class TarEpoch(Sequence[range]):
    """The steps of an epoch; each is a range of as many numbers as its batch has images.

    ``counts`` are how many rows of each tar are trained on, ``world`` how many processes share a step. Of
    each pass a last batch of fewer images than ``least`` is left out. All is a function of these numbers;
    ``first`` is the step that a slice begins with.
    """

    counts: tuple[int, ...]
    batch_size: int
    repeats: int
    seed: int
    epoch: int
    world: int = 1
    first: int = 0

    @property
    def least(self) -> int:
        """The fewest images of a batch: batch norm cannot train on one, and each process needs one."""
        return max(2, self.world)

    @property
    def steps_a_pass(self) -> int:
        """How many steps a pass over the data has."""
        full, rest = divmod(sum(self.counts), self.batch_size)
        return full + (rest >= self.least)

    @property
    def steps(self) -> int:
        """How many steps the whole epoch has."""
        return self.steps_a_pass * self.repeats

    def size(self, step: int) -> int:
        """Return how many images a step of the whole epoch has."""
        before = step % self.steps_a_pass * self.batch_size
        return min(self.batch_size, sum(self.counts) - before)

    def share(self, step: int, rank: int) -> int:
        """Return how many of them one process reads."""
        own = Share.of(self.size(step), rank, self.world)
        return own.stop - own.start

    def __len__(self) -> int:
        return self.steps - self.first

    @overload
    def __getitem__(self, index: int) -> range: ...

    @overload
    def __getitem__(self, index: slice) -> TarEpoch: ...

    def __getitem__(self, index: int | slice) -> range | TarEpoch:
        if isinstance(index, slice):
            start, _, _ = index.indices(len(self))
            assert index == slice(index.start, None), "a part of an epoch is the rest of it"
            return replace(self, first=self.first + start)
        if not 0 <= index < len(self):
            raise IndexError(f"step {index} of {len(self)}")
        step = self.first + index
        return range(step * self.batch_size, step * self.batch_size + self.size(step))

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The tar of every turn, int64 [repeats x tars]."""
        rng = np.random.default_rng([self.seed, self.epoch])
        return np.concatenate([rng.permutation(len(self.counts)) for _ in range(self.repeats)])

    @property
    def lanes(self) -> int:
        """How many lanes each process has: a power of two, and no more than there are tars for."""
        most = max(1, min(MOST_LANES, len(self.counts) // self.world))
        return int(2 ** (most.bit_length() - 1))

    def rows(self, rank: int, lane: int, *, before: int | None = None) -> int:
        """Return how many rows a lane gives to the steps ``before`` one, or to all."""
        before = self.steps if before is None else before
        return sum(self._rows_of(number, rank, lane, before) for number in range(self.repeats))

    def _rows_of(self, number: int, rank: int, lane: int, before: int) -> int:
        """Return how many rows of a pass a lane gives to the steps ``before`` one."""
        begin, end = number * self.steps_a_pass, min(before, (number + 1) * self.steps_a_pass)
        own = range(begin + (lane - begin) % self.lanes, end, self.lanes)
        last = (number + 1) * self.steps_a_pass - 1
        # All steps but the last of a pass are of one size.
        has_last = last in own
        return (len(own) - has_last) * self.share(begin, rank) + (self.share(last, rank) if has_last else 0)

    def pieces(self, rank: int, lane: int) -> Iterator[Piece]:
        """Yield what a lane reads, in its order."""
        for number in range(self.repeats):
            yield from self._pieces_of(number, rank, lane)

    def _pieces_of(self, number: int, rank: int, lane: int) -> Iterator[Piece]:
        own = rank * self.lanes + lane
        lanes = [(r, n) for r in range(self.world) for n in range(self.lanes)]
        rows = [self._rows_of(number, *other, self.steps) for other in lanes[: own + 1]]
        start, stop = sum(rows[:own]), sum(rows)
        first = number * len(self.counts)
        order = self.order[first : first + len(self.counts)]
        ends = np.cumsum(np.array(self.counts, dtype=np.int64)[order])
        turn = int(np.searchsorted(ends, start, side="right"))
        while start < stop:
            tar, end = int(order[turn]), int(ends[turn])
            begins = end - self.counts[tar]
            if end > start:
                until = min(end, stop)
                yield Piece(tar=tar, turn=first + turn, start=start - begins, stop=until - begins)
                start = until
            turn += 1

    def done(self, step: int) -> list[int]:
        """Return the turns whose every row was given to a step before ``step``."""
        left: set[int] = set()
        every: set[int] = set()
        for rank in range(self.world):
            for lane in range(self.lanes):
                given = self.rows(rank, lane, before=step)
                for piece in self.pieces(rank, lane):
                    given -= piece.stop - piece.start
                    every.add(piece.turn)
                    if given < 0:
                        left.add(piece.turn)
        return sorted(every - left)

    def mixed(self, rows: Iterable[T], piece: Piece, window: int) -> Iterator[T]:
        """Yield the rows of a piece in an order that is drawn, with ``window`` of them in memory at most."""
        rng = np.random.default_rng([self.seed, self.epoch, piece.turn, piece.start])
        waiting: list[T] = []
        for row in rows:
            if len(waiting) < window:
                waiting.append(row)
                continue
            place = int(rng.integers(window))
            yield waiting[place]
            waiting[place] = row
        for place in rng.permutation(len(waiting)).tolist():
            yield waiting[place]
