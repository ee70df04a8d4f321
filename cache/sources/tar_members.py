"""The files in a tar, one after the other, by their headers alone."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple, Self

from cache.runtime.errors import UserError, reason_of
from cache.sources.places import cannot_be_read, open_binary

# As a header has it: one block.
BLOCK = tarfile.BLOCKSIZE
_COMPRESSED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"(\xb5": "zstd", b"PK": "zip"}
# What a text of a sample is at most: what claims to be longer is another kind of file.
TEXT_BYTES = 2**20
# So much behind the end is looked at: writers fill it up with zeros.
END_BYTES = 2**20
# Times from then on, the year 2242, are none.
LATEST = 2**33


class Member(NamedTuple):
    """A file in a tar: its name, where its bytes begin, how many, and its time in ns, 0 for none."""

    name: str
    start: int
    bytes: int
    mtime_ns: int


class TarReader:
    """A tar that is open, read from its beginning to its end.

    Raises
    ------
    UserError
        If it is not there, cannot be read, is compressed, cut or damaged, or no tar.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        try:
            self._file: BinaryIO = open_binary(place)
        except OSError as error:
            raise cannot_be_read(place, error) from error

    def __enter__(self) -> TarReader:
        return self

    def __exit__(self, *error: object) -> None:
        self._file.close()

    def members(self) -> Iterator[Member]:
        """Yield its files, links and folders left out."""
        try:
            size = self._file.seek(0, os.SEEK_END)
            self._check_head(size)
            with tarfile.open(fileobj=self._file, mode="r:", tarinfo=_Header) as tar:
                at = -1
                while member := tar.next():
                    # Of a size below zero the next header would be this one again, for ever.
                    if tar.offset <= at or member.size < 0 or member.sparse is not None:
                        raise tarfile.ReadError(f"{member.name} has no place in it")
                    at = tar.offset
                    # tarfile would keep every member, for as long as it is open.
                    tar.members = []  # type: ignore[attr-defined]
                    if member.offset_data + member.size > size:
                        raise tarfile.ReadError(f"{member.name} ends beyond its end")
                    if member.isreg():
                        told = 0 < member.mtime < LATEST
                        mtime_ns = int(member.mtime * 10**9) if told else 0
                        yield Member(member.name, member.offset_data, member.size, mtime_ns)
                self._check_end(tar.offset)
        except OSError as error:
            raise cannot_be_read(self._place, error) from error
        except (tarfile.TarError, EOFError, ValueError, OverflowError, RecursionError) as error:
            raise self._damaged(reason_of(error)) from error

    def read(self, member: Member) -> bytes:
        """Return the bytes of a file that was just yielded."""
        self._file.seek(member.start)
        return self._file.read(member.bytes)

    def _check_head(self, size: int) -> None:
        if not size:
            raise self._damaged("it is empty")
        self._file.seek(0)
        head = self._file.read(2)
        if head in _COMPRESSED:
            raise UserError(
                f"{self._place} is compressed ({_COMPRESSED[head]}): no picture has a place in it",
                fix="unpack it to a plain .tar; pictures are compressed already.",
            )
        self._file.seek(0)

    def _check_end(self, at: int) -> None:
        """Refuse a tar whose headers stop elsewhere than at a block of zeros, with zeros alone behind it."""
        self._file.seek(at)
        rest = self._file.read(END_BYTES)
        if not rest:
            raise tarfile.ReadError("its end is missing")
        if any(rest[:BLOCK]):
            raise tarfile.ReadError(f"the header at byte {at:,} is damaged")
        if rest.strip(b"\0"):
            raise tarfile.ReadError("more follows behind its end")

    def _damaged(self, reason: str) -> UserError:
        return UserError(
            f"{self._place} is no whole tar ({reason})", fix="write or copy it again, or take it out."
        )


class _Header(tarfile.TarInfo):
    """A header that is read in a third of the time: of a plain file by its name, size and time alone."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        plain = len(buf) == BLOCK and buf[156] in b"0x" and not buf[345] and b"\0" in buf[:100]
        try:
            if plain and int(buf[148:156].strip(b" \0"), 8) == sum(buf) - sum(buf[148:156]) + 256:
                header = cls(buf[: buf.index(0)].decode(encoding, errors))
                header.size = int(buf[124:136].strip(b" \0"), 8)
                header.mtime = int(buf[136:148].strip(b" \0"), 8)
                header.type = bytes(buf[156:157])
                return header
        except ValueError:  # a number of another form
            pass
        return super().frombuf(buf, encoding, errors)
