"""The formats a shard can have, behind one small interface."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cache.sources.names import check_inner
from cache.store import hdf5_shards, webdataset
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedShard
from cache.store.read_errors import check_size, reading
from cache.store.shard_rows import ShardRows, WrongRows

# Of rows that were made elsewhere nobody knows the image.
_HASH = re.compile(r"(?:[0-9a-f]{64})?")


class ShardFormat(Protocol):
    """What the module of a format has; it raises a UserError where a file is damaged."""

    ENDING: str

    def write(self, path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None:
        """Write ``rows``; ``images`` are the rows' picture files, for a format that keeps them."""

    def read(self, path: Path, *, sha256: str) -> ShardRows:
        """Return the rows of a file that has that checksum."""

    def wrong_rows(self, path: Path) -> WrongRows:
        """Return which rows of a damaged file are not what was written."""


FORMATS: dict[str, ShardFormat] = {"hdf5": hdf5_shards, "webdataset": webdataset}


def read_shard(cache: Path, shard: ListedShard, manifest: Manifest, split: str) -> ShardRows:
    """Read a shard that the manifest lists, and compare it with what the manifest says.

    Raises
    ------
    UserError
        If it is missing, damaged, or holds other rows.
    """
    path, classes = cache / shard.file, len(manifest.splits[split].class_names)
    with reading(path):
        check_size(path, shard.bytes)
        rows = FORMATS[manifest.spec.format].read(path, sha256=shard.sha256)
        if rows.split != split:
            raise ValueError(f"it holds rows of {rows.split!r:.40}")
        shape = (*rows.image_embedding.shape, str(rows.image_embedding.dtype))
        expected = (shard.rows, manifest.embed_dim, manifest.spec.dtype)
        if shape != expected:
            raise ValueError(f"it holds {shape}, the manifest says {expected}")
        check_inner("a row", rows.keys)
        if not _are_labels(rows.labels, classes):
            raise ValueError("it holds labels of no class")
        if not all(map(_HASH.fullmatch, rows.file_sha256)):
            raise ValueError("it holds something other than the hashes of its images")
    return rows


def _are_labels(labels: NDArray[np.int64], classes: int) -> bool:
    if labels.ndim == 2:
        return labels.shape[1] == classes and bool(np.isin(labels, (0, 1)).all())
    return not len(labels) or bool(0 <= labels.min() <= labels.max() < classes)
