"""The rows of one split, in the order of their keys' hashes, of as many row groups as there are."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.sources.key_hashes import hashes_of
from cache.store.column_lines import map_listed
from cache.store.digests import NONE, Digests
from cache.store.hdf5_columns import BLOBS, Form, Forms
from cache.store.journal import RowGroup
from cache.store.journal_lines import CAPTIONS, IMAGES, FileLine
from cache.store.key_index import KeyIndex
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import reading
from cache.store.row_group import KeysFile

Item = TypeVar("Item")


class SplitGroups:
    """The row groups of a split, whose files are opened when they are first asked for."""

    def __init__(
        self,
        cache: Path,
        split: str,
        groups: Sequence[RowGroup],
        check: Callable[[FileLine], None] | None = None,
    ) -> None:
        """Of a cache folder; ``check``, where it is given, is called with every file before it is opened."""
        self.cache, self.split, self.groups = cache, split, tuple(groups)
        self._check = check
        self._keys: dict[str, KeysFile] = {}

    @cached_property
    def index(self) -> KeyIndex:
        """Where the rows are: the cache's own, or made here, as it is of files that are to be checked."""
        own = KeyIndex.load(self.cache, self.split, self.groups) if self._check is None else None
        return own or KeyIndex.of(self.groups, self.keys_of)

    @cached_property
    def starts(self) -> NDArray[np.int64]:
        """Where each group begins when they are laid end to end, int64 [groups + 1]."""
        return np.cumsum([0, *(group.rows for group in self.groups)])

    def keys_of(self, group: RowGroup) -> KeysFile:
        """Return the keys of a group, mapped; UserError where they are damaged."""
        if group.name not in self._keys:
            self._look(group.keys)
            self._keys[group.name] = KeysFile(self.cache, group.keys)
        return self._keys[group.name]

    def has(self, column: str) -> bool:
        """Say whether every group has a column."""
        return bool(self.groups) and all(column in group.lines for group in self.groups)

    def line(self, group: RowGroup, column: str) -> FileLine:
        """Return the line of a column's file, which is looked at; UserError where the group has none."""
        line = line_of(self.cache, group, column)
        self._look(line)
        return line

    def _look(self, line: FileLine) -> None:
        if self._check is not None:
            self._check(line)

    def column(self, column: str, dataset: str, form: Form) -> MappedRows:
        """Return a dataset of a column of every group, mapped, in the order of the split's rows.

        Raises
        ------
        UserError
            If a group has no such column, or its file is damaged.
        """
        arrays = [of_group[dataset] for of_group in self.arrays(column, {dataset: form})]
        return MappedRows(arrays, self.index.order)

    def arrays(
        self,
        column: str,
        forms: Forms,
        *,
        below: Mapping[str, tuple[int, ...]] | None = None,
    ) -> list[dict[str, Any]]:
        """Return datasets of a column of every group, mapped, [n, ...] each.

        ``below`` is how some of their rows' shapes have to begin. Raises as :meth:`column`.
        """
        of_groups: list[dict[str, Any]] = []
        for group in self.groups:
            line = self.line(group, column)
            arrays = map_listed(self.cache, line, forms, rows=group.rows)
            with reading(self.cache / line.file):
                for dataset, rows in arrays.items():
                    first = of_groups[0][dataset] if of_groups else rows
                    if (rows.dtype, rows.shape[1:]) != (first.dtype, first.shape[1:]):
                        raise ValueError(f"{dataset} is {rows.dtype} {rows.shape[1:]}, of other groups not")
                    if (shape := (below or {}).get(dataset, ())) != rows.shape[1 : 1 + len(shape)]:
                        raise ValueError(f"{dataset} has the shape {rows.shape}")
            of_groups.append(arrays)
        return of_groups

    def inside(self, places: Any) -> tuple[Any, Any]:
        """Return which group each row number, counted over the groups, lies in, and its number there."""
        number = np.searchsorted(self.starts, places, side="right") - 1
        return number, places - self.starts[number]

    def key(self, row: int) -> str:
        """Return the key of one row of the split."""
        number, inner = self.inside(self.index.order[row])
        return self.keys_of(self.groups[number]).key(int(inner))


def line_of(cache: Path, group: RowGroup, column: str) -> FileLine:
    """Return the line of a column's file; UserError where the group has none."""
    line = group.lines.get(column)
    if line is None:
        raise UserError(
            f"{cache} has no column {column} of the row group {group.name}",
            fix="run the command that made the cache again: it makes what is missing.",
        )
    return line


class Lazy(Sequence[Item]):
    """Items that are read when asked for: ``item_of(i)`` gives one."""

    def __init__(self, count: int, item_of: Callable[[int], Item]) -> None:
        self._count, self._item_of = count, item_of

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Item: ...

    @overload
    def __getitem__(self, index: slice) -> list[Item]: ...

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self._item_of(i) for i in range(*index.indices(self._count))]
        if not -self._count <= index < self._count:
            raise IndexError(f"row {index} of {self._count}")
        return self._item_of(int(index) % self._count)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImageFiles:
    """The files of N rows as they were when the rows were made, read when asked for.

    ``content`` uint8 [N, 32] is the SHA-256 of each, zeros where nobody knows (rows that were made
    elsewhere); ``bytes`` and ``mtime_ns`` int64 [N] are cheap to compare.
    """

    content: MappedRows
    bytes: MappedRows
    mtime_ns: MappedRows


class Positions(Mapping[str, int]):
    """The row of a key: behaves as a dict of all keys, and is none."""

    def __init__(self, rows: SplitRows) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows.keys)

    def __getitem__(self, key: str) -> int:
        row = int(self._rows.find([key])[0])
        if row < 0:
            raise KeyError(key)
        return row


class SplitRows:
    """One split's rows, in the order of their keys' hashes, which depends on the keys alone.

    Everything is mapped, and read when it is asked for: nothing here takes memory by the row but ``labels``.
    ``embeddings`` and ``caption_embeddings`` are [N, D], raw, in the cache's dtype; ``more`` are further
    columns of the teacher's by name.
    """

    def __init__(
        self,
        groups: SplitGroups,
        class_names: tuple[str, ...],
        *,
        several_labels: bool,
        embeddings: Callable[[str], MappedRows],
        prefix: str = "",
    ) -> None:
        """Use :meth:`cache.reader.EmbeddingCache.split`; ``embeddings`` reads a column of the teacher's."""
        self.groups, self.name, self.class_names = groups, groups.split, class_names
        self._several, self._read, self._prefix = several_labels, embeddings, prefix

    def __len__(self) -> int:
        return len(self.groups.index)

    @cached_property
    def keys(self) -> Sequence[str]:
        """The key of every row."""
        return Lazy(len(self), self.groups.key)

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """Numbers of ``class_names``, int64 [N], or [N, C] of 0 and 1 where an image can have several.

        -1 is an image without a label.
        """
        index = self.groups.index
        if index.labels is not None and not self._several:
            number = {name: i for i, name in enumerate(self.class_names)}
            own = [number.get(name, -1) for name in index.class_names]
            labels: NDArray[np.int64] = np.array([*own, -1], dtype=np.int64)[index.labels]  # -1 is the last
            return labels
        of_groups = [
            self.groups.keys_of(group).labels(self.class_names, several=self._several)
            for group in self.groups.groups
        ]
        return np.concatenate(of_groups)[index.order]

    @cached_property
    def embeddings(self) -> MappedRows:
        """The teacher's rows of the images."""
        return self._read(IMAGES)

    @cached_property
    def has_captions(self) -> bool:
        """Whether every image has a caption, or the row of one."""
        return self.groups.has(f"{self._prefix}{CAPTIONS}")

    @cached_property
    def caption_embeddings(self) -> MappedRows | None:
        """The teacher's rows of the captions; None where there are none."""
        return self._read(CAPTIONS) if self.has_captions else None

    @cached_property
    def captions(self) -> Sequence[str] | None:
        """The caption of every image; None where there are none."""
        if not self.has_captions:
            return None
        blobs = self.groups.column(f"{self._prefix}{CAPTIONS}", "caption", BLOBS)
        return Lazy(len(self), lambda row: bytes(blobs[row]).decode("utf-8", "surrogateescape"))

    @cached_property
    def more(self) -> dict[str, MappedRows]:
        """Further embeddings of every image by name: other cameras', and those of regions [N, 49, D]."""
        if not self.groups.groups:
            return {}
        names = {
            column.removeprefix(self._prefix)
            for column in self.groups.groups[0].columns
            if column.endswith("_embedding") and column.startswith(self._prefix)
        }
        others = sorted(name for name in names - {IMAGES, CAPTIONS} if "." not in name)
        return {name: self._read(name) for name in others}

    @cached_property
    def files(self) -> ImageFiles:
        """What tells a changed image from an unchanged one."""
        keys, order = [self.groups.keys_of(group) for group in self.groups.groups], self.groups.index.order
        return ImageFiles(
            content=MappedRows([of_group.content for of_group in keys], order),
            bytes=MappedRows([of_group.bytes for of_group in keys], order),
            mtime_ns=MappedRows([of_group.mtime_ns for of_group in keys], order),
        )

    def find(self, keys: Sequence[str]) -> NDArray[np.int64]:
        """Return the row of every key, int64 [m], -1 for none.

        Two keys of one hash of 64 bits are told apart by neither; among ten million keys there are such with
        a chance of one in 400,000.
        """
        return self.groups.index.find(hashes_of(keys))

    @cached_property
    def position(self) -> Mapping[str, int]:
        """The row of a key; for many keys :meth:`find` is faster."""
        return Positions(self)

    @property
    def digests(self) -> Digests:
        """What names the rows, read off the journal."""
        return sum((group.digests for group in self.groups.groups), NONE)

    def digests_of(self, rows: NDArray[np.int64]) -> Digests:
        """Return what names some of the rows; the fewer there are, or are not among them, the faster."""
        left = np.ones(len(self), dtype=bool)
        left[rows] = False
        others = np.flatnonzero(left)
        if len(others) < len(rows):
            return self.digests - self._read_digests(others)
        return self._read_digests(rows)

    def _read_digests(self, rows: NDArray[np.int64]) -> Digests:
        group_of, numbers = self.group_of(rows)
        groups = [(self.groups.groups[at], numbers[group_of == at]) for at in np.unique(group_of)]
        return sum((self.groups.keys_of(group).digests(own.tolist()) for group, own in groups), NONE)

    def group_of(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return which group each of some rows lies in, and its number there."""
        return self.groups.inside(self.groups.index.order[rows])
