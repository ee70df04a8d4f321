"""Where files lie: a path on this machine, or an address such as ``s3://BUCKET/KEY`` (extra ``remote``)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from glob import glob, has_magic

from braceexpand import braceexpand


def is_remote(place: str) -> bool:
    """Say whether a place is an address and no path."""
    return "://" in place


def read_bytes(place: str, start: int = 0, size: int | None = None) -> bytes:
    """Return the bytes of a file from ``start``, ``size`` of them or all; OSError where there are none."""
    with open(place, "rb") as file:
        file.seek(start)
        return file.read() if size is None else file.read(size)


def status_of(place: str) -> tuple[int, int]:
    """Return bytes and modification time in ns of a file, 0 for what a server does not tell; else OSError."""
    status = os.stat(place)
    return status.st_size, status.st_mtime_ns


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
        places += sorted(glob(one)) if has_magic(one) and not os.path.exists(one) else [one]
    return places
