"""Concurrent requests -> batches: while the model works on one batch, the next gathers."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.deploy.model import Embed

Row = NDArray[np.float32]


class Batcher:
    """Runs ``embed`` on stacks of at most ``most`` images. How many may wait is the admission's business."""

    def __init__(self, embed: Embed, *, most: int) -> None:
        self._embed, self._most = embed, most
        self._queue: asyncio.Queue[tuple[NDArray[Any], asyncio.Future[Row]]] = asyncio.Queue()
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="model")

    async def embed(self, image: NDArray[Any]) -> Row:
        """Return the embedding [D] of one prepared image."""
        future: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((image, future))
        return await future

    async def run(self) -> None:
        """Serve what waits, for ever."""
        while True:
            batch = [await self._queue.get()]
            while len(batch) < self._most and not self._queue.empty():
                batch.append(self._queue.get_nowait())
            batch = [(image, future) for image, future in batch if not future.done()]  # who asked may be gone
            if not batch:
                continue
            try:
                images = np.stack([image for image, _ in batch])
                rows = await asyncio.get_running_loop().run_in_executor(self._pool, self._embed, images)
            except Exception as error:  # each of the batch is told, and the next is served
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)

    def close(self) -> None:
        """Let nothing more begin."""
        self._pool.shutdown(wait=False, cancel_futures=True)
