"""Where files lie: a path on this machine, or an address such as ``s3://BUCKET/KEY`` (extra ``remote``)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from glob import glob, has_magic
from typing import BinaryIO
from urllib.parse import quote

from braceexpand import braceexpand

from cache.runtime.errors import UserError
from cache.sources import remote_files


def is_remote(place: str) -> bool:
    """Say whether a place is an address and no path."""
    return "://" in place


def read_bytes(place: str, start: int = 0, size: int | None = None) -> bytes:
    """Return the bytes of a file from ``start``, ``size`` of them or all.

    Raises
    ------
    OSError
        If this file cannot be read.
    UserError
        If its server cannot be reached, or the package for it is not installed.
    """
    if is_remote(place):
        if size is None:
            return remote_files.read_whole(place)[start:]
        return remote_files.read_part(place, start, size)
    with open(place, "rb") as file:
        file.seek(start)
        return file.read() if size is None else file.read(size)


def open_binary(place: str) -> BinaryIO:
    """Open a file for reading, with seeking; raises as :func:`read_bytes`."""
    return remote_files.open_file(place) if is_remote(place) else open(place, "rb")


def status_of(place: str) -> tuple[int, int]:
    """Return bytes and modification time in ns of a file, 0 for what a server does not tell.

    Raises as :func:`read_bytes`.
    """
    if is_remote(place):
        return remote_files.status(place)
    status = os.stat(place)
    return status.st_size, status.st_mtime_ns


def list_folder(place: str) -> Iterator[str]:
    """Yield the names of the files below a folder, relative to it; raises as :func:`read_bytes`."""
    if is_remote(place):
        yield from (file.name for file in remote_files.files_below(place))
        return
    seen = set()
    for folder, folders, names in os.walk(place, followlinks=True, onerror=_raise):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in seen:  # a link to a folder that it lies in
            folders.clear()
            continue
        seen.add((status.st_dev, status.st_ino))
        below = os.path.relpath(folder, place)
        yield from (name if below == os.curdir else f"{below}/{name}" for name in names)


def _raise(error: OSError) -> None:
    raise error


def beside(place: str, name: str) -> str:
    """Return a path or address that a file of that ``place`` names: relative ones lie in its folder."""
    if is_remote(name) or os.path.isabs(name):
        return name
    if remote_files.is_web(place):  # where "#" ends a name; what is quoted already stays so
        name = quote(name, safe="/%?&=+,;:@!$'()*~")
    folder = place.rpartition("/")[0] if is_remote(place) else os.path.dirname(place)
    return f"{folder}/{name}" if folder else name


def expanded(pattern: str) -> Sequence[str]:
    """Return the places that a pattern names: ``{000..099}`` as in a shell, then ``*``; sorted.

    Raises
    ------
    UserError
        If its braces do not match, or as :func:`read_bytes`.
    """
    if not is_remote(pattern) and os.path.exists(pattern):
        return [pattern]
    try:
        each = [*braceexpand(pattern)]
    except ValueError as error:
        raise UserError(f"the braces of {pattern} do not match", fix="write {000..099}.") from error
    places: list[str] = []
    for one in each:
        if not has_magic(one) or (not is_remote(one) and os.path.exists(one)):
            places.append(one)
        else:
            places += _matching(one) if is_remote(one) else sorted(glob(one, recursive=True))
    return sorted(dict.fromkeys(places))


def _matching(pattern: str) -> Sequence[str]:
    try:
        return remote_files.matching(pattern)
    except OSError as error:
        raise cannot_be_read(pattern, error) from error


def of_no_kind(place: str) -> UserError:
    """Return the error of a file that is there and is no source."""
    name = place.rpartition("/")[2].lower()
    if name.endswith((".zip", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")):
        fix = "unpack it to a folder or to a plain .tar."
    else:
        fix = "give a folder, a list (.csv, .tsv, .jsonl), .parquet or .tar; of one picture its folder."
    return UserError(f"{place} is a file of a kind that is no source of images", fix=fix)


def cannot_be_read(place: str, error: OSError) -> UserError:
    """Return the error of a source that cannot be read, which names it."""
    if isinstance(error, (FileNotFoundError, NotADirectoryError)):
        where = "address" if is_remote(place) else "path"
        return UserError(f"{place} does not exist", fix=f"check the {where}.")
    return UserError(f"{place} cannot be read ({error.strerror or error})", fix="check it, and your rights.")
