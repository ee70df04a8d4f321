"""Reads the nearest class texts that a cache keeps of its images: ``neighbours--BANK``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from cache.runtime.atomic_files import digest
from cache.runtime.errors import UserError
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import REPAIR
from cache.store.split_rows import SplitRows

StoredNeighbours = tuple[MappedRows, MappedRows]


@dataclass(frozen=True, kw_only=True, slots=True)
class NeighboursSettings:
    """The ``k`` nearest texts of every image are kept."""

    k: int


def column_of(bank: str) -> str:
    """Return what the column of the texts of a bank nearest to each image is called."""
    return f"neighbours--{bank}"


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
