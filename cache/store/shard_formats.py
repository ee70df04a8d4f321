"""The formats a shard can have, behind one small interface."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from cache.sources.names import check_inner
from cache.store import hdf5_shards as shards_hdf5
from cache.store import webdataset as shards_webdataset
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ShardEntry
from cache.store.read_errors import check_size, damaged_shard
from cache.store.shard_rows import Damage, ShardRows

# Of rows that were made elsewhere nobody knows the image.
_HASH = re.compile(r"(?:[0-9a-f]{64})?")


class WriteShard(Protocol):
    """Writes ``rows`` to ``path``; ``images`` are the rows' picture files, for a format that keeps them."""

    def __call__(self, path: Path, rows: ShardRows, images: Sequence[Path] | None = None) -> None: ...


class ReadShard(Protocol):
    """Reads the rows of ``path``, whose file has that checksum; UserError when it is damaged."""

    def __call__(self, path: Path, *, sha256: str) -> ShardRows: ...


class FindDamage(Protocol):
    """Returns which rows of ``path`` are damaged; UserError when nothing of it can be read."""

    def __call__(self, path: Path) -> Damage: ...


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardFormat:
    """How one format names, writes, reads and examines a shard."""

    ending: str
    write: WriteShard
    read: ReadShard
    damage: FindDamage


FORMATS = {
    "hdf5": ShardFormat(
        ending="h5", write=shards_hdf5.write, read=shards_hdf5.read, damage=shards_hdf5.damage
    ),
    "webdataset": ShardFormat(
        ending="tar",
        write=shards_webdataset.write,
        read=shards_webdataset.read,
        damage=shards_webdataset.damage,
    ),
}


def read_shard(cache: Path, shard: ShardEntry, manifest: Manifest, split: str) -> ShardRows:
    """Read a shard that the manifest lists, and compare it with what the manifest says.

    Raises
    ------
    UserError
        If it is missing, damaged, or holds other rows.
    """
    path, classes = cache / shard.file, len(manifest.splits[split].class_names)
    with damaged_shard(path):
        check_size(path, shard.bytes)
        rows = FORMATS[manifest.spec.format].read(path, sha256=shard.sha256)
        if rows.split != split:
            raise ValueError(f"it holds rows of {rows.split!r:.40}")
        found = (*rows.image_embedding.shape, str(rows.image_embedding.dtype))
        expected = (shard.rows, manifest.embed_dim, manifest.spec.dtype)
        if found != expected:
            raise ValueError(f"it holds {found}, the manifest says {expected}")
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


__all__ = ["FORMATS", "ShardFormat", "ShardRows", "read_shard"]
