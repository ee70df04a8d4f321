"""Bytes -> what the model takes, within budgets: small images never wait for large ones."""

from __future__ import annotations

import asyncio
import heapq
import io
import itertools
import os
import sys
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

from numpy.typing import NDArray

from cache.sources.accounts import Reason
from cache.sources.decoding import UnreadableImage, reading_picture
from cache.sources.picture_formats import opened
from distill.deploy.limits import Limits, Refused

# Decoded within some 20 ms. Larger ones have a lane of their own.
SMALL_IMAGE = 2_000_000
# A decoder of small images may hold 2 MP, 16 MB with Pillow's copies; eight keep any onnxruntime busy.
SMALL_DECODERS, LARGE_DECODERS = 8, 4


class Decoders:
    """Threads that decode and prepare images, each the bytes of a file.

    Small ones are decoded by one thread a core. Of large ones as many are decoded at once as have
    ``limits.pixels`` together, the smallest first, by threads that give way to all others.
    """

    def __init__(self, prepare: Callable[[bytes], NDArray[Any]], limits: Limits) -> None:
        self._prepare, self._most = prepare, limits.pixels
        cores = os.cpu_count() or 1
        self._small = ThreadPoolExecutor(min(cores, SMALL_DECODERS), thread_name_prefix="decode")
        self._large = ThreadPoolExecutor(
            min(cores, LARGE_DECODERS), thread_name_prefix="decode-large", initializer=_give_way
        )
        self._pixels = Pixels(limits)

    async def prepared(self, raw: bytes) -> NDArray[Any]:
        """Return what the model takes of an image.

        Refused with 413 if the image has too many pixels, with 415 if it is none, with 503 if too many large
        ones wait.
        """
        loop = asyncio.get_running_loop()
        prepared = await loop.run_in_executor(self._small, self._if_small, raw)
        if not isinstance(prepared, int):
            return prepared
        async with self._pixels.taken(prepared):
            return await loop.run_in_executor(self._large, self._decoded, raw)

    def close(self) -> None:
        """Let nothing more begin."""
        for pool in (self._small, self._large):
            pool.shutdown(wait=False, cancel_futures=True)

    def _if_small(self, raw: bytes) -> NDArray[Any] | int:
        """Return a small image prepared, of a large one how many pixels it has."""
        pixels = self._pixels_of(raw)
        return self._decoded(raw) if pixels <= SMALL_IMAGE else pixels

    def _pixels_of(self, raw: bytes) -> int:
        """Return how many pixels the header of an image says that it has."""
        try:
            with reading_picture("given"), opened(io.BytesIO(raw)) as image:
                width, height = image.size
        except UnreadableImage as error:
            raise Refused(415, f"the body is no image that can be read ({error})") from None
        if width * height > self._most:
            raise Refused(413, f"the image has {width:,} x {height:,} pixels, more than {self._most:,}")
        return width * height

    def _decoded(self, raw: bytes) -> NDArray[Any]:
        try:
            return self._prepare(raw)
        except UnreadableImage as error:
            if Reason.told_by(str(error)) is Reason.TOO_LARGE:
                raise Refused(413, f"the image is {error}") from error
            raise Refused(415, f"the image is damaged ({error})") from error


class Pixels:
    """A budget of pixels that may be decoded at once, for one event loop; who waits for less goes first."""

    def __init__(self, limits: Limits) -> None:
        self._free, self._most = limits.pixels, limits.queue * limits.pixels
        self._patience = limits.patience
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._order = itertools.count()

    @asynccontextmanager
    async def taken(self, pixels: int) -> AsyncIterator[None]:
        """Hold so many pixels, at most the whole budget, while the block runs.

        Refused with 503 if too many wait already, or it waited too long.
        """
        if pixels > self._free:
            await self._wait(pixels)
        else:
            self._free -= pixels
        try:
            yield
        finally:
            self._give(pixels)

    async def _wait(self, pixels: int) -> None:
        if sum(waiting for waiting, _, _ in self._waiting) + pixels > self._most:
            raise Refused(503, "many large images wait already; ask again in a few seconds", after=5)
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        entry = (pixels, next(self._order), future)
        heapq.heappush(self._waiting, entry)
        try:
            async with asyncio.timeout(self._patience):
                await future
        except BaseException as error:
            if entry in self._waiting:
                self._waiting.remove(entry)
                heapq.heapify(self._waiting)
            elif future.done() and not future.cancelled():  # its turn came in the same moment
                self._give(pixels)
            if isinstance(error, TimeoutError):
                raise Refused(503, "large images wait too long; ask again in a minute", after=60) from None
            raise

    def _give(self, pixels: int) -> None:
        self._free += pixels
        while self._waiting and self._waiting[0][0] <= self._free:
            taken, _, future = heapq.heappop(self._waiting)
            if not future.done():
                self._free -= taken
                future.set_result(None)


def _give_way() -> None:
    """Let the kernel prefer every other thread to this one, where threads have a priority (Linux)."""
    if sys.platform.startswith("linux"):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)
