"""Where files lie: a path on this machine, or an address such as ``s3://BUCKET/KEY`` (extra ``remote``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from glob import glob, has_magic
from typing import Any, BinaryIO, cast

from braceexpand import braceexpand

from cache.runtime.errors import UserError

# A server that says nothing for so long is taken to be gone.
TIMEOUT_SECONDS = 30


def is_remote(place: str) -> bool:
    """Say whether a place is an address and no path."""
    return "://" in place


def read_bytes(place: str, start: int = 0, size: int | None = None) -> bytes:
    """Return the bytes of a file from ``start``, ``size`` of them or all; OSError where there are none."""
    if is_remote(place):
        return _read_remote(place, start, size)
    with open(place, "rb") as file:
        file.seek(start)
        return file.read() if size is None else file.read(size)


def open_binary(place: str) -> BinaryIO:
    """Open a file for reading, with seeking; OSError where there is none."""
    if is_remote(place):
        files, path = _file_system(place)
        return cast(BinaryIO, files.open(path, "rb"))
    return open(place, "rb")


def status_of(place: str) -> tuple[int, int]:
    """Return bytes and modification time in ns of a file, 0 for what a server does not tell; else OSError."""
    if is_remote(place):
        return _remote_status(place)
    status = os.stat(place)
    return status.st_size, status.st_mtime_ns


def list_folder(place: str) -> Iterator[str]:
    """Yield the names of the files below a folder, relative to it; OSError where there is none."""
    if is_remote(place):
        files, path = _file_system(place)
        for name in files.find(path):
            yield name.removeprefix(path).lstrip("/")
        return
    for folder, _, names in os.walk(place):
        below = os.path.relpath(folder, place)
        yield from (name if below == os.curdir else f"{below}/{name}" for name in names)


def beside(place: str, name: str) -> str:
    """Return a path or address that a file of that ``place`` names: relative ones lie in its folder."""
    if is_remote(name) or os.path.isabs(name):
        return name
    folder = place.rpartition("/")[0] if is_remote(place) else os.path.dirname(place)
    return f"{folder}/{name}" if folder else name


def expanded(pattern: str) -> Sequence[str]:
    """Return the places that a pattern names: ``{000..099}`` as in a shell, then ``*``; sorted."""
    places: list[str] = []
    for one in braceexpand(pattern):
        if not has_magic(one):
            places.append(one)
        elif is_remote(one):
            files, path = _file_system(one)
            scheme = one.partition("://")[0]
            places += sorted(name if is_remote(name) else f"{scheme}://{name}" for name in files.glob(path))
        else:
            places += [one] if os.path.exists(one) else sorted(glob(one))
    return places


@lru_cache(maxsize=16)
def _by_scheme(scheme: str) -> Any:
    try:
        import fsspec

        if scheme in ("http", "https"):
            import aiohttp

            seconds = {"sock_connect": TIMEOUT_SECONDS, "sock_read": TIMEOUT_SECONDS}
            timeout = aiohttp.ClientTimeout(total=None, **seconds)
            return fsspec.filesystem(scheme, client_kwargs={"timeout": timeout})
        if scheme == "s3":
            config = {"connect_timeout": TIMEOUT_SECONDS, "read_timeout": TIMEOUT_SECONDS}
            return fsspec.filesystem(scheme, config_kwargs=config)
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise UserError(
            f"{scheme}:// needs a package that is not installed ({error.name})",
            fix="pip install 'distill[remote]'.",
        ) from error
    except ValueError as error:
        raise UserError(f"{scheme}:// cannot be read", fix="use s3, gs or https.") from error


def _file_system(place: str) -> tuple[Any, str]:
    """Return what reads an address, and the path that it has there."""
    files = _by_scheme(place.partition("://")[0])
    return files, files._strip_protocol(place)


def _read_remote(place: str, start: int, size: int | None) -> bytes:
    files, path = _file_system(place)
    if size is None:
        return cast(bytes, files.cat_file(path))[start:]
    content = cast(bytes, files.cat_file(path, start=start, end=start + size))
    # A server that knows no ranges gives the whole.
    return content if len(content) == size else content[start : start + size]


def _remote_status(place: str) -> tuple[int, int]:
    files, path = _file_system(place)
    info = files.info(path)
    modified = info.get("LastModified") or info.get("mtime") or info.get("updated")
    time = modified.timestamp() if hasattr(modified, "timestamp") else modified
    return int(info.get("size") or 0), int(float(time) * 10**9) if isinstance(time, int | float) else 0
