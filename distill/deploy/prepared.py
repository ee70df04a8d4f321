"""Pictures decoded by threads while a model works on those before."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from numpy.typing import NDArray

from cache.sources.decoding import UnreadableImage

Item = TypeVar("Item")
DECODERS = 4
# Decoded batches that wait for the model: with one in work the decoders are never idle.
AHEAD = 2


def prepared_batches(
    items: Iterable[Item], prepare: Callable[[Item], NDArray[Any]], *, batch_size: int
) -> Iterator[list[tuple[Item, NDArray[Any] | str]]]:
    """Yield batches of items in their order, each with what ``prepare`` makes of it, or the reason why not.

    Items are taken as they are needed, some batches ahead.
    """

    def prepared(item: Item) -> NDArray[Any] | str:
        try:
            return prepare(item)
        except UnreadableImage as error:
            return str(error) or "unreadable"

    waiting: deque[list[tuple[Item, Future[NDArray[Any] | str]]]] = deque()
    left = iter(items)
    with ThreadPoolExecutor(DECODERS) as pool:
        while chunk := [*islice(left, batch_size)]:
            waiting.append([(item, pool.submit(prepared, item)) for item in chunk])
            if len(waiting) == AHEAD:
                yield [(item, future.result()) for item, future in waiting.popleft()]
        for last in waiting:
            yield [(item, future.result()) for item, future in last]
