"""The k nearest class texts of every image, exactly, through FAISS. The only importer of faiss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import REPAIR
from cache.store.split_rows import SplitRows

Neighbours = tuple[NDArray[np.int32], NDArray[np.float32]]
StoredNeighbours = tuple[MappedRows, MappedRows]
COLUMN = "neighbours"
ROWS_AT_ONCE = 65_536
# How many nearest texts of an image are kept unless another number is asked for.
NEAREST = 256


@dataclass(frozen=True, kw_only=True, slots=True)
class NeighboursSettings:
    """The ``k`` nearest texts of every image are kept."""

    k: int


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows of length 1, float32; a row of zeros stays zero."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)


def nearest_texts(images: Any, texts: NDArray[Any], k: int) -> Neighbours:
    """Return the k texts of highest cosine for every image.

    Parameters
    ----------
    images
        [N, D], raw; any array whose slices are arrays.
    texts
        [C, D], raw.
    k
        How many; at most C are given.

    Returns
    -------
    nearest, similarity
        [N, k] int32 columns of ``texts`` and [N, k] float32 cosines, best first.
    """
    k = min(k, len(texts))
    index = _index(unit_rows(texts))
    blocks = [
        index.search(unit_rows(images[start : start + ROWS_AT_ONCE]), k)
        for start in range(0, len(images), ROWS_AT_ONCE)
    ]
    if not blocks:
        return np.empty((0, k), dtype=np.int32), np.empty((0, k), dtype=np.float32)
    similarity = np.concatenate([block[0] for block in blocks])
    return np.concatenate([block[1] for block in blocks]).astype(np.int32), similarity


def flavour() -> str:
    """Return which FAISS this is, and on what it searches."""
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    return f"FAISS {faiss.__version__}, {f'on {gpus} GPUs' if gpus else 'on the CPU'}"


def _index(texts: NDArray[np.float32]) -> Any:
    index: Any = faiss.IndexFlatIP(texts.shape[1])
    # The CPU build has no such function at all; the GPU build says 0 where there is no device.
    if getattr(faiss, "get_num_gpus", lambda: 0)() > 0 and hasattr(faiss, "index_cpu_to_all_gpus"):
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(texts)
    return index


def column_of(bank: str) -> str:
    """Return what the column of the texts of a bank nearest to each image is called."""
    return f"{COLUMN}--{bank}"


def source_of(class_names: Sequence[str], bank_sha256: str) -> str:
    """Return what names the texts that neighbours are of: labels among these classes, and the bank's file."""
    return digest([list(class_names), bank_sha256])


def stored_neighbours(rows: SplitRows, column: str, k: int) -> StoredNeighbours:
    """Map the neighbours that every group of a split has, k an image; UserError where a file is damaged."""
    forms = {"nearest": ("i", (2,)), "similarity": ("f", (2,))}
    of_groups, order = rows.groups.arrays(column, forms), rows.groups.index.order
    nearest = _Labels([arrays["nearest"] for arrays in of_groups], order, width=k)
    similarity = MappedRows([arrays["similarity"] for arrays in of_groups], order, width=k)
    nearest.below = len(rows.class_names)
    if not nearest.shape[1] == similarity.shape[1] == k:
        raise UserError(
            f"{column} of {rows.groups.cache} has {nearest.shape[1]} texts an image, expected {k}", fix=REPAIR
        )
    return nearest, similarity


class _Labels(MappedRows):
    """Labels that are looked at when they are read: they came with a file."""

    below = 0

    def __getitem__(self, index: Any) -> NDArray[Any]:
        labels = super().__getitem__(index)
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < self.below:
            raise UserError(f"neighbours name a class {int(labels.max())} of {self.below}", fix=REPAIR)
        return labels
