"""Files on servers, by what fsspec knows: ``s3://``, ``gs://``, ``https://`` (extra ``remote``).

A file that is not there, or may not be read, is an OSError as it is of a disk; a server that cannot be
reached is a :class:`ServerGone`, for no other file can be had of it either.
"""

from __future__ import annotations

import errno
import io
import os
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache, partial
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast
from urllib.parse import unquote

from cache.runtime.errors import Refused, UserError, missing_package, reason_of
from cache.runtime.system_errors import AGAIN

T = TypeVar("T")
# A server that says nothing for so many seconds is taken to be gone; the variable names others.
SECONDS, SECONDS_VARIABLE = 30.0, "DISTILL_SERVER_SECONDS"
# Before it is asked again that refused, broke off or is busy: in seconds.
PAUSES = (0.5, 2.0)
# Parts of files are read in blocks, for pictures of a tar are wanted one after the other; each process keeps
# the last ones. A server that knows no parts sends the whole, of which one is kept.
BLOCK_BYTES, BLOCKS_KEPT = 4 * 2**20, 16
WHOLE_BYTES = 2 * 2**30
_wholes: dict[str, bytes] = {}
# What was told of files, whose blocks are those of that time.
_seen: dict[str, tuple[int, int]] = {}
_WEB = ("http", "https")
_BUSY = (408, 429)


class ServerGone(Refused):
    """A server that cannot be reached, or does not answer."""


def is_web(place: str) -> bool:
    """Say whether an address is one of the web, in which names are quoted."""
    return place.partition("://")[0] in _WEB


class RemoteFile(NamedTuple):
    """A file below an address: its name from there, its own address, bytes and time in ns, 0 if untold."""

    name: str
    place: str
    bytes: int
    mtime_ns: int


def read_whole(place: str) -> bytes:
    """Return the bytes of a file; OSError where it cannot be read, ServerGone where nothing can."""
    files, path = _file_system(place)
    return _asked(place, partial(files.cat_file, path))


def read_part(place: str, start: int, size: int) -> bytes:
    """Return ``size`` bytes of a file from ``start``, fewer at its end; raises as :func:`read_whole`."""
    numbers = range(start // BLOCK_BYTES, (start + size - 1) // BLOCK_BYTES + 1)
    parts = []
    for number in numbers:
        first = max(start - number * BLOCK_BYTES, 0)
        parts.append(_block(place, number)[first : start + size - number * BLOCK_BYTES])
    return b"".join(parts)


def status(place: str) -> tuple[int, int]:
    """Return bytes and modification time in ns of a file, 0 for what the server does not tell."""
    files, path = _file_system(place)
    info = _asked(place, partial(files.info, path))
    now = int(info.get("size") or 0), _time_of(info)
    if _seen.get(place) != now or not all(now):
        forget_blocks()
        _seen[place] = now
    return now


def open_file(place: str) -> BinaryIO:
    """Return a file that can be read with seeking; raises as :func:`read_whole`, then and later."""
    size, _ = status(place)
    if not size:  # which some servers do not tell
        return io.BytesIO(read_whole(place))
    return cast(BinaryIO, io.BufferedReader(_Reader(place, size), buffer_size=2**16))


def files_below(place: str) -> Iterator[RemoteFile]:
    """Yield every file below an address by name; a web server must show an index page of each folder."""
    files, path = _file_system(place)
    below = path.rstrip("/") + "/"
    if is_web(place):
        infos = dict(_pages_below(files, below))
    else:
        infos = _asked(place, partial(files.find, below, detail=True))
    scheme = place.partition("://")[0]
    for address in sorted(infos):
        if not address.startswith(below):
            continue
        name, info = address.removeprefix(below), infos[address]
        yield RemoteFile(
            name=unquote(name) if is_web(place) else name,
            place=address if "://" in address else f"{scheme}://{address}",
            bytes=int(info.get("size") or 0),
            mtime_ns=_time_of(info),
        )


def _pages_below(files: Any, folder: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield what the index pages below a folder name; fsspec's own way leaves out a page that fails."""
    left, seen = [folder], {folder}
    while left:
        page = left.pop()
        for info in _asked(page, partial(files.ls, page, detail=True)):
            address = info["name"]
            # Pages link to themselves in another order.
            if "?" in address or not address.startswith(page) or address in seen:
                continue
            seen.add(address)
            if info["type"] == "directory":
                left.append(address)
            else:
                yield address, info


def matching(pattern: str) -> list[str]:
    """Return the addresses that a pattern with ``*`` names, sorted."""
    files, path = _file_system(pattern)
    scheme = pattern.partition("://")[0]
    names = _asked(pattern, partial(files.glob, path))
    return sorted(name if "://" in name else f"{scheme}://{name}" for name in names)


def forget_blocks() -> None:
    """Have files read again that may be others by now."""
    _block_of.cache_clear()
    _wholes.clear()


class _Reader(io.RawIOBase):
    """A file of ``size`` bytes that is read by its blocks."""

    def __init__(self, place: str, size: int) -> None:
        self._place, self._size, self._at = place, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        begin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(begin + offset, 0)
        return self._at

    def tell(self) -> int:
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._at)
        if wanted <= 0:
            return 0
        content = read_part(self._place, self._at, wanted)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _file_system(place: str) -> tuple[Any, str]:
    """Return what reads an address, and the path that it has there."""
    # fsspec's thread does not outlive a fork: every process has its own.
    files = _by_scheme(place.partition("://")[0], os.getpid(), _seconds())
    return files, files._strip_protocol(place)


@lru_cache(maxsize=8)
def _by_scheme(scheme: str, process: int, seconds: float) -> Any:
    del process
    try:
        import fsspec

        given = {"use_listings_cache": False, "skip_instance_cache": True}
        files = fsspec.filesystem(scheme, **given, **_patience(scheme, seconds))
        if hasattr(files, "retries"):  # of S3's, which has those of its library beside them
            files.retries = 1
        return files
    except ImportError as error:
        missing = missing_package(error, extra="remote")
        raise UserError(f"{scheme}:// needs a package: {missing.problem}", fix=missing.fix) from error
    except (ValueError, TypeError) as error:  # of one that wants more than an address
        raise UserError(
            f"{scheme}:// is no address that can be read ({reason_of(error)})",
            fix="use s3://, gs:// or https://.",
        ) from error


def _patience(scheme: str, seconds: float) -> dict[str, Any]:
    """Return the arguments by which a file system gives up on a server."""
    if scheme in _WEB:
        import aiohttp

        timeout = aiohttp.ClientTimeout(total=None, sock_connect=seconds, sock_read=seconds)
        return {"client_kwargs": {"timeout": timeout}}
    if scheme in ("s3", "s3a"):
        patience = {"connect_timeout": seconds, "read_timeout": seconds}
        return {"config_kwargs": {**patience, "retries": {"total_max_attempts": 2}}}
    return {"requests_timeout": seconds} if scheme in ("gs", "gcs") else {}


def _seconds() -> float:
    text = os.environ.get(SECONDS_VARIABLE, "")
    try:
        seconds = float(text) if text else SECONDS
    except ValueError:
        seconds = 0.0
    if not seconds > 0:
        raise UserError(f"{SECONDS_VARIABLE} is {text!r:.40}", fix="set it to seconds above 0.")
    return seconds


def _block(place: str, number: int) -> bytes:
    return _block_of(place, number, os.getpid())


@lru_cache(maxsize=BLOCKS_KEPT)
def _block_of(place: str, number: int, process: int) -> bytes:
    del process  # whose parent's blocks may be old
    start = number * BLOCK_BYTES
    if (whole := _wholes.get(place)) is not None:
        return whole[start : start + BLOCK_BYTES]
    files, path = _file_system(place)
    content = _asked(place, partial(files.cat_file, path, start=start, end=start + BLOCK_BYTES))
    if len(content) <= BLOCK_BYTES:
        return content
    if len(content) > WHOLE_BYTES:
        raise UserError(
            f"{place} is too large for a server that sends files only whole",
            fix="use one that knows Range, or copy it here first.",
        )
    _wholes.clear()
    _wholes[place] = content
    return content[start : start + BLOCK_BYTES]


def _asked(place: str, ask: Callable[[], T]) -> T:
    """Return what a server answers, asked again where it is busy or breaks off."""
    for pause in PAUSES:
        try:
            return ask()
        except Exception as error:
            failure, again = _failure(place, error)
            if not again:
                raise failure from error
        time.sleep(pause)
    try:
        return ask()
    except Exception as error:
        raise _failure(place, error)[0] from error


def _failure(place: str, error: BaseException) -> tuple[Exception, bool]:
    """Return what a library's error means, and whether it may be another next time."""
    # Of any reason whatever: the reason is the cause.
    if isinstance(error, FileNotFoundError) and error.__cause__ is not None:
        error = error.__cause__
    code = getattr(error, "status", None) or getattr(error, "code", None)
    code = code if isinstance(code, int) else 0
    if isinstance(error, FileNotFoundError) or code in (404, 410):
        return FileNotFoundError(errno.ENOENT, "is not there", place), False
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return PermissionError(errno.EACCES, f"refused: {reason_of(error)}", place), False
    if 400 <= code < 500 and code not in _BUSY:
        return PermissionError(errno.EACCES, f"the server answers {code}", place), False
    if isinstance(error, ValueError) and not code:  # it is asked of no server at all
        return OSError(errno.EINVAL, f"no address: {reason_of(error)}", place), False
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        problem = f"{place}: the server says nothing for {_seconds():g} seconds"
        return ServerGone(problem, fix=f"look at it, or set {SECONDS_VARIABLE}, {AGAIN}"), False
    told = f"the server answers {code}" if code else reason_of(error)
    return ServerGone(
        f"{place} cannot be read ({told})", fix=f"look at the network and the server, {AGAIN}"
    ), True


def _time_of(info: dict[str, Any]) -> int:
    """Return the modification time in ns that a server tells, or 0."""
    names = ("LastModified", "Last-Modified", "last_modified", "mtime", "updated")
    told = next((info[name] for name in names if info.get(name)), 0)
    try:
        if isinstance(told, str):  # of the web a text as in mail, else one of ISO 8601
            told = parsedate_to_datetime(told) if "," in told else datetime.fromisoformat(told)
        return int((told.timestamp() if isinstance(told, datetime) else float(told)) * 10**9)
    except (ValueError, TypeError):
        return 0
