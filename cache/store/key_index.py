"""Where the row of a key is: ``index/SPLIT.h5``, the hashes of a split's keys, sorted, mapped.

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
from cache.store.hdf5_columns import map_columns, texts, write_columns
from cache.store.journal import RowGroup
from cache.store.read_errors import READ_ERRORS
from cache.store.row_group import KeysFile

FOLDER = "index"


@dataclass(frozen=True, kw_only=True)
class KeyIndex:
    """The rows of a split that are seen, in the order of their keys' hashes.

    ``hashes`` uint64 [N] rise; ``order`` int64 [N] has each one's row number, the groups laid end to end.
    """

    hashes: NDArray[np.uint64]
    order: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.hashes)

    def find(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return where each of some hashes is, int64 [m], the first if it is there twice; -1 for none."""
        if not len(self):
            return np.full(len(hashes), -1, dtype=np.int64)
        at = np.searchsorted(self.hashes, hashes)
        at[at == len(self)] = 0
        return np.where(self.hashes[at] == hashes, at, -1)

    @classmethod
    def of(cls, groups: Sequence[RowGroup], keys_of: Callable[[RowGroup], KeysFile]) -> KeyIndex:
        """Return the index of some groups' rows; ``keys_of`` opens the keys of one."""
        hashes, order, start = [], [], 0
        for group in groups:
            seen = np.ones(group.rows, dtype=bool)
            seen[list(group.removed)] = False
            hashes.append(np.asarray(keys_of(group).hashes)[seen])
            order.append(start + np.flatnonzero(seen))
            start += group.rows
        if not hashes:
            return cls(hashes=np.empty(0, np.uint64), order=np.empty(0, np.int64))
        joined = np.concatenate(hashes)
        # Of two keys of one hash the order of the rows decides.
        rising = np.argsort(joined, kind="stable")
        return cls(hashes=joined[rising], order=np.concatenate(order)[rising])

    def save(self, cache: Path, split: str, groups: Sequence[RowGroup]) -> None:
        """Write the index of a split's groups, whole or not at all."""
        made_from = texts([made_from_of(groups)])
        write_columns(
            cache / FOLDER / f"{split}.h5", {"hash": self.hashes, "row": self.order, "made_from": made_from}
        )

    @classmethod
    def load(cls, cache: Path, split: str, groups: Sequence[RowGroup]) -> KeyIndex | None:
        """Map the index of a split; None where there is none of these groups."""
        wanted = {"hash": ("u", (1,)), "row": ("i", (1,)), "made_from": ("u", (1,))}
        try:
            columns = map_columns(cache / FOLDER / f"{split}.h5", wanted)
        except READ_ERRORS:  # made anew, which costs little
            return None
        hashes, order = columns["hash"], columns["row"]
        live = sum(group.live for group in groups)
        if (
            columns["made_from"].tobytes() != made_from_of(groups).encode()
            or not len(hashes) == len(order) == live
        ):
            return None
        return (
            cls(hashes=hashes, order=order) if (hashes.dtype, order.dtype) == (np.uint64, np.int64) else None
        )


def made_from_of(groups: Sequence[RowGroup]) -> str:
    """Return what names the rows of some groups that are seen, and where they lie."""
    return digest([[group.name, group.keys.sha256, sorted(group.removed)] for group in groups])
