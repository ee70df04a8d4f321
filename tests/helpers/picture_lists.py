"""Small pictures, and what lists and tables say of them."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from PIL import Image

from cache.sources.data import open_data
from cache.sources.samples import Source
from cache.sources.source_options import AS_THEY_ARE, SourceOptions


def jpeg(number: int) -> bytes:
    """The bytes of a small picture; each number gives another one."""
    file = io.BytesIO()
    Image.new("RGB", (24, 20), (number * 37 % 256, number * 11 % 256, number % 256)).save(file, "JPEG")
    return file.getvalue()


def write_pictures(folder: Path, names: Iterable[str]) -> None:
    """Write a picture of each name, no two alike."""
    for number, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(jpeg(number))


def splits_of(place: object, options: SourceOptions = AS_THEY_ARE) -> Mapping[str, Source]:
    """The splits of one source."""
    return open_data([place], options).splits


def keys_of(source: Source) -> list[str]:
    """All keys as they are listed, chunk by chunk."""
    return [one.key for chunk in source.chunks() for one in source.list(chunk.id)]


def labels_by_key(source: Source) -> dict[str, tuple[str, ...]]:
    """The labels of all keys."""
    return {one.key: one.labels for chunk in source.chunks() for one in source.list(chunk.id)}
