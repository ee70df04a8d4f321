"""The nearest class texts of every image, where keeping them pays: ``neighbours--BANK``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.build.columns import Column, GroupRows, Made, Tools, Wanted
from cache.store.column_lines import column_name
from cache.store.journal import RowGroup
from cache.store.manifest_lines import ListedBank
from cache.store.neighbours import nearest_texts
from cache.store.stored_neighbours import NeighboursSettings, column_of, source_of
from cache.store.text_banks import load_bank


@dataclass(frozen=True, kw_only=True)
class Neighbours(Column):
    """The texts of a bank nearest to each image, of a teacher's rows and texts.

    A file holds ``nearest`` [n, k] int32, labels among the split's classes, and ``similarity`` [n, k]
    float32.
    """

    of: NeighboursSettings
    bank: str
    listed: ListedBank
    class_names: Mapping[str, tuple[str, ...]]

    @property
    def name(self) -> str:
        """``neighbours--BANK``, of an added teacher with its name."""
        return column_name(column_of(self.bank), self.teacher)

    @property
    def splits(self) -> tuple[str, ...]:
        """Every split that has classes; whoever trains on a pool takes the texts nearest to its rows then."""
        return tuple(name for name, own in self.class_names.items() if own)

    def wanted(self, cache: Path, groups: Sequence[RowGroup]) -> Sequence[Wanted | None]:
        """Return for every group the texts and classes that it is made from."""
        return [Wanted(of=source_of(self.class_names[group.split], self.listed.sha256)) for group in groups]

    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Search for the nearest texts of a group's rows; UserError if the bank or the rows are damaged."""
        class_names = self.class_names[group.group.split]
        texts = _class_texts(group.cache / self.listed.file, self.bank, self.listed.sha256, class_names)
        rows = group.embeddings(self.teacher)
        nearest, similarity = nearest_texts(rows, texts, self.of.k)
        tools.progress.advance(len(group))
        return {"nearest": group.spread(nearest), "similarity": group.spread(similarity)}, {}


@lru_cache(maxsize=8)
def _class_texts(path: Path, bank: str, sha256: str, class_names: tuple[str, ...]) -> NDArray[np.float32]:
    return load_bank(path, bank, sha256=sha256).class_texts(class_names)
