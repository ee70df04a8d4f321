"""Rows of a teacher as a few bytes each: a projection that the cache keeps, and 8 bits a number.

A row x [D] is mean + scale * code @ components, with ``code`` int8 [K] and one ``scale`` a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import sha256_of
from cache.runtime.errors import UserError
from cache.sources.splits import MAIN_TEACHER
from cache.store.hdf5_columns import Forms, map_columns, write_columns
from cache.store.manifest_lines import ListedFile
from cache.store.read_errors import REPAIR, reading

FOLDER = "projections"
# How rows are stored: as they are, or as the name says, of so many numbers, of so many bits each.
RAW, PCA128_INT8 = "raw", "pca128-int8"
STORES = (RAW, PCA128_INT8)
KEPT, LARGEST_CODE = 128, 127
_FORMS: Forms = {"mean": ("f", (1,)), "components": ("f", (2,))}


@dataclass(frozen=True, kw_only=True, slots=True)
class Projection:
    """``mean`` float32 [D] and ``components`` float32 [K, D], rows of length 1 that are at right angles."""

    mean: NDArray[np.float32]
    components: NDArray[np.float32]

    def encoded(self, rows: NDArray[Any]) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
        """Return rows [..., D] as codes int8 [..., K] and scales float32 [...]."""
        # In float64, so that a code does not hang on how many rows are encoded together.
        projected = (rows.astype(np.float64) - self.mean) @ self.components.T.astype(np.float64)
        scale = (np.abs(projected).max(axis=-1) / LARGEST_CODE).astype(np.float32)
        safe = np.where(scale > 0, scale, np.float32(1))[..., None]
        code = np.clip(np.round(projected / safe), -LARGEST_CODE, LARGEST_CODE).astype(np.int8)
        return code, scale

    def decoded(self, code: NDArray[np.int8], scale: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the rows float32 [..., D] of codes and scales."""
        projected = code.astype(np.float32) * scale[..., None]
        rows = projected @ self.components + self.mean
        return rows.astype(np.float32, copy=False)

    def save(self, cache: Path, *, teacher: str = MAIN_TEACHER) -> ListedFile:
        """Write it, whole or not at all, and return the manifest's line for it."""
        name = f"{FOLDER}/{teacher}.h5"
        write_columns(cache / name, {"mean": self.mean, "components": self.components})
        return ListedFile.of(cache, name)


def listed_projection(cache: Path, files: Sequence[ListedFile], *, sha256: str, embed_dim: int) -> Projection:
    """Read the projection of a cache that has a checksum; UserError where there is none, or it is damaged."""
    listed = next((file for file in files if file.sha256 == sha256), None)
    if listed is None:
        raise UserError(f"{cache} lists no projection that its rows of views were made by", fix=REPAIR)
    return load_projection(cache / listed.file, sha256=sha256, embed_dim=embed_dim)


def load_projection(path: Path, *, sha256: str, embed_dim: int) -> Projection:
    """Read a projection of rows [embed_dim], whose file has that checksum; UserError where it is damaged."""
    with reading(path, what="the projection"):
        if sha256_of(path) != sha256:
            raise ValueError("its checksum is not the manifest's")
        columns = map_columns(path, _FORMS)
        mean, components = (np.array(columns[name], dtype=np.float32) for name in _FORMS)
        if mean.shape != (embed_dim,) or components.shape[1:] != mean.shape:
            raise ValueError(f"it is of rows of {len(mean):,} numbers, the teacher's have {embed_dim:,}")
    return Projection(mean=mean, components=components)
