"""Reads the augmented views that a cache keeps for few-shot retrieval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.store.column_shards import open_column_shard
from cache.store.hdf5_columns import mapped_column, read_strings
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ListedShard
from cache.store.mapped_arrays import CheckedRows


def read_support_views(
    cache: Path, manifest: Manifest, split: str, keys: Sequence[str], views: int | None
) -> NDArray[np.float32]:
    """Return the augmented views of images, [n, V - 1, D] float32; see ``EmbeddingCache.support_views``."""
    column = manifest.support_views.get(split)
    wanted = views or (column.views if column else 10)
    add = (
        f"add them: the same cache-features command with --support-views {wanted}, "
        "or use --views 1, which needs the plain rows alone."
    )
    if column is None or column.views < wanted:
        kept = f"only {column.views}" if column else "no"
        raise UserError(f"the cache {cache} keeps {kept} views of the images of {split}", fix=add)
    places: dict[str, tuple[CheckedRows, int]] = {}
    for shard in column.shards:
        rows, of_shard = _read_shard(cache, shard)
        places |= {key: (rows, i) for i, key in enumerate(of_shard)}
    missing = [key for key in keys if key not in places]
    if missing:
        raise UserError(
            f"the cache {cache} keeps no views of {len(missing)} of {len(keys)} support images of {split} "
            f"({', '.join(missing[:3])})",
            fix=f"{add.removesuffix('.')} (and a --support-shots of 0, or at least as many as the shots).",
        )
    return np.stack([rows[i][: wanted - 1] for rows, i in map(places.__getitem__, keys)]).astype(np.float32)


def _read_shard(cache: Path, shard: ListedShard) -> tuple[CheckedRows, list[str]]:
    with open_column_shard(cache, shard) as file:
        rows = mapped_column(cache / shard.file, file, "view_embedding", kinds="f", ndim=(3,))
        keys = read_strings(file, "key")
        if not len(rows) == len(keys) == shard.rows:
            raise ValueError("its columns differ in length")
    return rows, keys
