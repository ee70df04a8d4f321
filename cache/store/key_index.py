"""Where the row of a key is: ``index/SPLIT.h5``, the hashes of a split's keys, sorted, and labels; mapped.

The order of the hashes is the order of a split's rows for every reader: it depends on the keys alone, not on
who wrote them when. It is made from the row groups and can be made again; a reader that meets one of other
groups, or none, makes its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import digest
from cache.sources.key_hashes import positions
from cache.store.hdf5_columns import BLOBS, Column, Forms, map_columns, texts, write_columns
from cache.store.journal import RowGroup
from cache.store.read_errors import READ_ERRORS
from cache.store.row_group import KeysFile

FOLDER = "index"
_FORMS: Forms = {
    "hash": ("u", (1,)),
    "row": ("i", (1,)),
    "label": ("i", (1,)),
    "made_from": ("u", (1,)),
    "class_name": BLOBS,
}


@dataclass(frozen=True, kw_only=True)
class KeyIndex:
    """The rows of a split that are seen, in the order of their keys' hashes.

    ``hashes`` uint64 [N] rise; ``order`` int64 [N] has each one's row number, the groups laid end to end.
    ``labels`` int32 [N] are numbers of ``class_names``, -1 for an image without one, so that a reader need
    not open the keys of every group; None where an image has several.
    """

    hashes: NDArray[np.uint64]
    order: NDArray[np.int64]
    labels: NDArray[np.int32] | None = None
    class_names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return where each of some hashes is, int64 [m], the first if it is there twice; -1 for none."""
        return positions(self.hashes, hashes)

    def is_same(self, other: KeyIndex) -> bool:
        """Say whether another index has the same rows in the same places."""
        mine, theirs = (
            (index.hashes, index.order, index.class_names, () if index.labels is None else index.labels)
            for index in (self, other)
        )
        return all(map(np.array_equal, mine, theirs))

    @classmethod
    def of(cls, groups: Sequence[RowGroup], keys_of: Callable[[RowGroup], KeysFile]) -> KeyIndex:
        """Return the index of some groups' rows; ``keys_of`` opens the keys of one."""
        keys = [keys_of(group) for group in groups]
        names = tuple(sorted({name for of_group in keys for name in of_group.class_names}))
        starts = np.cumsum([0, *(group.rows for group in groups)])
        labels = None
        if all(of_group.has_at_most_one_label for of_group in keys):
            labels = np.empty(int(starts[-1]), dtype=np.int32)
        hashes, seen = np.empty(int(starts[-1]), np.uint64), np.ones(int(starts[-1]), dtype=bool)
        for group, of_group, start in zip(groups, keys, starts.tolist(), strict=False):
            hashes[start : start + group.rows] = of_group.hashes
            seen[start + np.array(sorted(group.removed), dtype=np.int64)] = False
            if labels is not None:
                labels[start : start + group.rows] = of_group.labels(names, several=False)
        order = np.flatnonzero(seen)
        # Of two keys of one hash the order of the rows decides.
        order = order[np.argsort(hashes[order], kind="stable")]
        return cls(
            hashes=hashes[order],
            order=order,
            labels=None if labels is None else labels[order],
            class_names=names,
        )

    def save(self, cache: Path, split: str, groups: Sequence[RowGroup]) -> None:
        """Write the index of a split's groups, whole or not at all."""
        columns: dict[str, Column] = {
            "hash": self.hashes,
            "row": self.order,
            "label": np.empty(0, np.int32) if self.labels is None else self.labels,
            "class_name": texts(self.class_names),
            "made_from": texts([made_from_of(groups)]),
        }
        write_columns(cache / FOLDER / f"{split}.h5", columns)

    @classmethod
    def load(cls, cache: Path, split: str, groups: Sequence[RowGroup]) -> KeyIndex | None:
        """Map the index of a split; None where there is none of these groups."""
        try:
            columns = map_columns(cache / FOLDER / f"{split}.h5", _FORMS)
            if columns["made_from"].tobytes() != made_from_of(groups).encode():
                return None
            index = cls(
                hashes=columns["hash"],
                order=columns["row"],
                labels=columns["label"] if len(columns["label"]) else None,
                class_names=tuple(columns["class_name"].texts()),
            )
        except READ_ERRORS:  # made anew, which costs little
            return None
        return index if index._fits(groups) else None

    def _fits(self, groups: Sequence[RowGroup]) -> bool:
        rows, live = (sum(getattr(group, count) for group in groups) for count in ("rows", "live"))
        dtypes = (self.hashes.dtype, self.order.dtype)
        if dtypes != (np.uint64, np.int64) or not len(self.hashes) == len(self.order) == live:
            return False
        # Rows and classes are taken by these numbers: one that is none's would be read from elsewhere.
        if live and not 0 <= int(self.order.min()) <= int(self.order.max()) < rows:
            return False
        if self.labels is None or not live:
            return self.labels is None
        most = len(self.class_names)
        return len(self.labels) == live and -1 <= int(self.labels.min()) <= int(self.labels.max()) < most


def made_from_of(groups: Sequence[RowGroup]) -> str:
    """Return what names the rows of some groups that are seen, and where they lie."""
    return digest([[group.name, group.keys.sha256, sorted(group.removed)] for group in groups])
