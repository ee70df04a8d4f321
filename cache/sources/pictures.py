"""A picture that lies somewhere: a file, or so many bytes of a larger one."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

from PIL import Image

from cache.runtime.system_errors import is_the_systems
from cache.sources.decoding import PLAIN, Decoding, content_of
from cache.sources.places import is_remote, read_bytes, status_of


class _Once(threading.local):
    """What :meth:`PictureSample.identity` has read, for the ``pictures`` of the same sample, which come next.

    So that a picture on a server is fetched once, and is what its hash was taken of.
    """

    sample: PictureSample | None = None
    content: bytes = b""

    def keep(self, sample: PictureSample, content: bytes) -> bytes:
        self.sample, self.content = sample, content
        return content

    def take(self, sample: PictureSample) -> bytes | None:
        """Return what was kept of that sample, and keep it no longer."""
        content = self.content if self.sample is sample else None
        self.sample, self.content = None, b""
        return content


_once = _Once()


@dataclass(frozen=True, kw_only=True, slots=True)
class PictureSample:
    """A picture by reference, small and picklable: it is read where it is decoded.

    It is the file ``place``, or ``size`` bytes of it from ``start``. ``file_bytes`` and ``mtime_ns`` are what
    is cheap to compare, as it was listed.
    """

    key: str
    place: str
    labels: tuple[str, ...] = ()
    caption: str | None = None
    start: int = 0
    size: int | None = None
    file_bytes: int = 0
    mtime_ns: int = 0
    decoding: Decoding = PLAIN
    views: ClassVar[tuple[str, ...]] = ("image",)

    @property
    def where(self) -> str:
        """The file or address, and the key where it holds several."""
        return self.place if self.size is None else f"{self.place}: {self.key}"

    def pictures(self) -> tuple[Image.Image, ...]:
        """Return the decoded picture, RGB; UnreadableImage, or OSError where the system is the reason."""
        content = _once.take(self)
        return (self.decoding.picture(content_of(self.content) if content is None else content, self.key),)

    def content(self) -> bytes:
        """Return the picture's bytes; OSError where they cannot be read."""
        return read_bytes(self.place, self.start, self.size)

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256, bytes, modification time in ns); of one that cannot be read the hash is ''."""
        try:
            return sha256(_once.keep(self, self.content())).hexdigest(), *self.status()
        except OSError as error:
            if is_the_systems(error):
                raise
            return "", 0, 0

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time in ns; OSError where a file is not there.

        Of a part of a file, and of what lies on a server, they are those that it was listed with.
        """
        if self.size is not None or is_remote(self.place):
            return self.file_bytes, self.mtime_ns
        return status_of(self.place)
