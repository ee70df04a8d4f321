"""A picture that lies somewhere: a file, or so many bytes of a larger one."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import ClassVar

from PIL import Image

from cache.runtime.system_errors import is_the_systems
from cache.sources.decoding import PLAIN, Decoding, content_of
from cache.sources.places import read_bytes, status_of


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
        return (self.decoding.picture(content_of(self), self.key),)

    def content(self) -> bytes:
        """Return the picture's bytes; OSError where they cannot be read."""
        return read_bytes(self.place, self.start, self.size)

    def identity(self) -> tuple[str, int, int]:
        """Return (SHA-256, bytes, modification time in ns); of one that cannot be read the hash is ''."""
        try:
            return sha256(self.content()).hexdigest(), *self.status()
        except OSError as error:
            if is_the_systems(error):
                raise
            return "", 0, 0

    def status(self) -> tuple[int, int]:
        """Return bytes and modification time in ns, of a part of a file as they were listed; else OSError."""
        return status_of(self.place) if self.size is None else (self.file_bytes, self.mtime_ns)
