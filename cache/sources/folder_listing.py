"""The names of the images of a split's class folders, as arrays: some 40 bytes an image, and no object."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.sources.key_chunks import KeyChunks
from cache.sources.key_hashes import hashes_of

# Files that one thread looks at in one go: they wait for the disk, which on a network is slow.
FILES_AT_ONCE = 512
THREADS = 16
# The size and time of a file that is not there any more.
GONE = -1


class FolderListing:
    """What the class folders below ``root`` held when it was made; image i is the same as long as it lives.

    ``names_of`` gives the names of a folder's images, at least one; what it raises goes through.
    """

    def __init__(self, root: Path, classes: Sequence[str], names_of: Callable[[Path], Sequence[str]]) -> None:
        self.root, self.classes = root, classes
        self._counts: list[int] = []
        blobs = []
        for name in classes:
            names = names_of(root / name)
            self._counts.append(len(names))
            # No name holds a zero byte.
            blobs.append("\0".join([*names, ""]).encode(errors="surrogateescape"))
        self._names = b"".join(blobs)

    def __len__(self) -> int:
        return sum(self._counts)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where the name of each image ends."""
        return np.flatnonzero(np.frombuffer(self._names, dtype=np.uint8) == 0)

    @cached_property
    def _class_starts(self) -> NDArray[np.int64]:
        """The first image of each class."""
        return np.concatenate([[0], np.cumsum(self._counts)])[:-1]

    @cached_property
    def key_chunks(self) -> KeyChunks:
        """The chunks of the images."""
        return KeyChunks.of(hashes_of(self.keys()))

    def keys(self) -> Iterator[str]:
        """Yield the key of every image, class after class."""
        starts, ends = self._class_starts, self._ends
        for name, start, count in zip(self.classes, starts.tolist(), self._counts, strict=True):
            first = int(ends[start - 1]) + 1 if start else 0
            last = int(ends[start + count - 1])
            names = self._names[first:last].decode(errors="surrogateescape").split("\0")
            yield from (f"{name}/{file}" for file in names)

    def keys_at(self, images: NDArray[np.int64]) -> list[str]:
        """Return the keys of some images."""
        owners = np.searchsorted(self._class_starts, images, side="right") - 1
        ends = self._ends[images]
        starts = np.where(images > 0, self._ends[images - 1] + 1, 0)
        return [
            f"{self.classes[owner]}/{self._names[start:end].decode(errors='surrogateescape')}"
            for owner, start, end in zip(owners.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ]

    def status_at(self, images: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """Return bytes and modification time in ns of some images, or all, [n, 2]; GONE where one is."""
        images = np.arange(len(self)) if images is None else images
        starts = range(0, len(images), FILES_AT_ONCE)
        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            status = list(pool.map(lambda start: self._status(images[start : start + FILES_AT_ONCE]), starts))
        return np.concatenate([np.empty((0, 2), dtype=np.int64), *status])

    def _status(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        status = [_status_of(f"{self.root}/{key}") for key in self.keys_at(images)]
        return np.array(status, dtype=np.int64)


def _status_of(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # of any other reason nobody may take it to be gone
        return GONE, GONE
    return status.st_size, status.st_mtime_ns
