"""Concurrent requests -> batches: while the model works on one batch, the next gathers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

Row = NDArray[np.float32]


class Full(Exception):
    """More requests wait than may."""


class Batcher:
    """Runs ``embed`` on stacks of at most ``most`` images; ``waiting`` more may wait."""

    def __init__(self, embed: Callable[[NDArray[Any]], Row], *, most: int, waiting: int) -> None:
        self._embed, self._most = embed, most
        self._queue: asyncio.Queue[tuple[NDArray[Any], asyncio.Future[Row]]] = asyncio.Queue(waiting)
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model")

    @property
    def waiting(self) -> int:
        """How many images wait."""
        return self._queue.qsize()

    async def embed(self, image: NDArray[Any]) -> Row:
        """Return the embedding [D] of one prepared image.

        Raises
        ------
        Full
            If too many wait already.
        """
        future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        try:
            self._queue.put_nowait((image, future))
        except asyncio.QueueFull:
            raise Full from None
        return await future

    async def run(self) -> None:
        """Serve what waits, for ever."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._most and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            try:
                images = np.stack([image for image, _ in batch])
                rows = await asyncio.get_running_loop().run_in_executor(self._pool, self._embed, images)
            except Exception as error:  # each of the batch is told, and the next is served
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():  # whoever asked may have gone away
                    future.set_result(row)
