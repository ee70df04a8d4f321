"""The names of the pictures below a folder, as arrays: some 40 bytes an image, and no object of each."""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cache.sources.accounts import Account, Reason, Tally
from cache.sources.decoding import PLAIN, Decoding
from cache.sources.folder_walk import TEXT, FolderWalk, PictureFolder, joined
from cache.sources.key_chunks import KeyChunks
from cache.sources.key_hashes import hashes_of

# Files that one thread looks at in one go: they wait for the disk, which on a network is slow.
FILES_AT_ONCE = 512
THREADS = 16
# The size and time of a file that is not there any more.
GONE = -1
# The depth of the folder that is the class: the last, which holds the picture; none of what has no label.
LAST, UNLABELLED = -1, 0


@dataclass(frozen=True, kw_only=True, slots=True)
class FolderRoot:
    """A folder whose pictures are samples, and what is one for all of them.

    The class of one is the ``depth``-th folder below ``root``, or :data:`LAST`; :data:`UNLABELLED`: none.
    ``skip`` are folders of the root that are no part of it; ``texts``: a picture may have one beside it.
    """

    root: str
    depth: int = 1
    skip: frozenset[str] = frozenset()
    texts: bool = False
    decoding: Decoding = PLAIN

    def class_of(self, key: str) -> str:
        """Return the class of a picture, '' where it has none."""
        return self.class_of_folder(key.rpartition("/")[0])

    def class_of_folder(self, folder: str) -> str:
        """Return the class of the pictures in a folder below the root; '' where they have none."""
        if self.depth == 1:
            return folder.partition("/")[0]
        if self.depth == UNLABELLED:
            return ""
        names = folder.split("/") if folder else []
        if self.depth == LAST:
            return names[-1] if names else ""
        return names[self.depth - 1] if len(names) >= self.depth else ""


class FolderListing:
    """What lay below a root when it was made; image i is the same as long as it lives.

    ``classes`` are those that have an image, sorted; ``account`` is what was left out, ``odd`` counts those
    that were taken though their name is not UTF-8, and ``has_texts`` says whether texts lay beside some.
    """

    def __init__(self, of: FolderRoot) -> None:
        self._of, self.root = of, of.root
        walk = FolderWalk(root=of.root, skip=of.skip)
        self._folders: list[str] = []
        self._counts: list[int] = []
        odd = Tally()
        blobs, classes, met = [], set(), set()
        for folder in walk.pictures():
            name = of.class_of_folder(folder.path)
            if folder.names:
                met.add(name)
            if not folder.names or (of.depth and not self._has_class(folder, name, walk.tally)):
                continue
            classes.add(name)
            self._folders.append(folder.path)
            self._counts.append(len(folder.names))
            # No name holds a zero byte.
            blobs.append("\0".join([*folder.names, ""]).encode(errors="surrogateescape"))
            _count_odd(odd, folder)
        self._names = b"".join(blobs)
        self.classes = tuple(sorted(classes)) if of.depth else ()
        for empty in sorted({*self._class_folders(walk)} - met):
            walk.tally.add(Reason.EMPTY, f"{empty}/")
        self.account: Account = walk.tally.account()
        self.odd: Account = odd.account()
        self.has_texts = walk.texts > 0

    @staticmethod
    def _has_class(folder: PictureFolder, name: str, tally: Tally) -> bool:
        reason = Reason.NO_LABEL if not name else None if is_utf8(name) else Reason.NAME
        if reason:
            for file in folder.names:
                tally.add(reason, joined(folder.path, file))
        return reason is None

    def _class_folders(self, walk: FolderWalk) -> Iterator[str]:
        """Yield the classes that have a folder; of the last ones none is there without a picture."""
        depth = self._of.depth
        return (folder.split("/")[-1] for folder in walk.folders if folder.count("/") + 1 == depth)

    def __len__(self) -> int:
        return sum(self._counts)

    @cached_property
    def _ends(self) -> NDArray[np.int64]:
        """Where the name of each image ends."""
        return np.flatnonzero(np.frombuffer(self._names, dtype=np.uint8) == 0)

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        """The first image of each folder."""
        return np.concatenate([[0], np.cumsum(self._counts)])[:-1].astype(np.int64)

    @cached_property
    def key_chunks(self) -> KeyChunks:
        """The chunks of the images."""
        return KeyChunks.of(hashes_of(self.keys()))

    def keys(self) -> Iterator[str]:
        """Yield the key of every image, folder after folder."""
        ends = self._ends
        for folder, start, count in zip(self._folders, self._starts.tolist(), self._counts, strict=True):
            first = int(ends[start - 1]) + 1 if start else 0
            last = int(ends[start + count - 1])
            names = self._names[first:last].decode(errors="surrogateescape").split("\0")
            yield from (joined(folder, name) for name in names)

    def keys_at(self, images: NDArray[np.int64]) -> list[str]:
        """Return the keys of some images."""
        owners = np.searchsorted(self._starts, images, side="right") - 1
        ends = self._ends[images]
        starts = np.where(images > 0, self._ends[images - 1] + 1, 0)
        return [
            joined(self._folders[owner], self._names[start:end].decode(errors="surrogateescape"))
            for owner, start, end in zip(owners.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ]

    def status_of_all(self) -> NDArray[np.int64]:
        """Return [N, 2] as :meth:`status_at`, or where texts lie beside some [N, 4], theirs too."""
        images = np.arange(len(self))
        status = self.status_at(images)
        return np.hstack([status, self.status_at(images, texts=True)]) if self.has_texts else status

    def status_at(self, images: NDArray[np.int64], *, texts: bool = False) -> NDArray[np.int64]:
        """Return bytes and modification time in ns of some images or their texts, [n, 2]; GONE of none."""

        def status_of(start: int) -> NDArray[np.int64]:
            paths = (f"{self.root}/{key}" for key in self.keys_at(images[start : start + FILES_AT_ONCE]))
            status = [_status_of(os.path.splitext(path)[0] + TEXT if texts else path) for path in paths]
            return np.array(status, dtype=np.int64)

        with ThreadPoolExecutor(max_workers=THREADS) as pool:
            status = list(pool.map(status_of, range(0, len(images), FILES_AT_ONCE)))
        return np.concatenate([np.empty((0, 2), dtype=np.int64), *status])


def is_utf8(name: str) -> bool:
    """Say whether a name that the system gave is UTF-8."""
    return name.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in name)


def _count_odd(odd: Tally, folder: PictureFolder) -> None:
    """Count the names of a folder's pictures that are not UTF-8: they are taken, and said."""
    joined_names = "\0".join(folder.names)
    if is_utf8(folder.path) and is_utf8(joined_names):
        return
    for name in folder.names:
        if not is_utf8(joined(folder.path, name)):
            odd.add(Reason.NAME, joined(folder.path, name))


def _status_of(path: str) -> tuple[int, int]:
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):  # of any other reason nobody may take it to be gone
        return GONE, GONE
    return status.st_size, status.st_mtime_ns
