"""One picture under two keys where that spoils a result: in two splits, or under two classes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.store.manifest import Manifest
from cache.store.shard_formats import read_shard


@dataclass(frozen=True, kw_only=True, slots=True)
class Duplicate:
    """Two images of the same content, as ``SPLIT/KEY``."""

    one: str
    other: str

    def __str__(self) -> str:
        return f"{self.one} is {self.other}"


def duplicates_of(folder: Path, manifest: Manifest) -> list[Duplicate]:
    """Return the images that a cache holds in two splits, or in one split under two classes, by content.

    The content is the SHA-256 of the file (of the pictures, for episodes). A test on an image that was
    trained on, or an OOD image among the training ones, measures something else than it says.
    """
    first: dict[bytes, tuple[str, str, str]] = {}
    duplicates = []
    for split, key, label, content in _images(folder, manifest):
        before = first.setdefault(content, (split, key, label))
        if before[:2] != (split, key) and (before[0], before[2]) != (split, label):
            duplicates.append(Duplicate(one=f"{before[0]}/{before[1]}", other=f"{split}/{key}"))
    return duplicates


def _images(folder: Path, manifest: Manifest) -> Iterator[tuple[str, str, str, bytes]]:
    for split, shard in manifest.listed_shards:
        rows = read_shard(folder, shard, manifest, split)
        for key, label, sha256 in zip(rows.keys, np.asarray(rows.labels), rows.file_sha256, strict=True):
            if sha256:  # rows that were imported have none
                yield split, key, str(label), bytes.fromhex(sha256)
