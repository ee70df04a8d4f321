"""A row group: rows of one split that were written together, ``rows/SPLIT-00000/``, a file a column.

``keys.h5`` has what a row is of; with its line in the journal the group is there, and from then on its rows
never change. Every other column is a file beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.locks import check_held
from cache.runtime.system_errors import write_error
from cache.sources.key_hashes import hashes_of
from cache.sources.names import check_class_names, check_inner
from cache.store.digests import Digests, digest_of_keys, digest_of_values
from cache.store.hdf5_columns import (
    BLOBS,
    OFFSET,
    Blobs,
    Column,
    Forms,
    MappedBlobs,
    checked_offset,
    in_file,
    map_columns,
    texts,
    write_columns,
)
from cache.store.journal_lines import DIGEST, KEYS, ROWS, VALUES, FileLine
from cache.store.read_errors import reading

HASH_BYTES = 32
UNKNOWN = bytes(HASH_BYTES)
# A group closes when it has so many rows, or when so many seconds went by since its first.
GROUP_ROWS, GROUP_SECONDS = 65_536, 300
_ARRAYS: Forms = {
    "key_hash": ("u", (1,)),
    "label": ("i", (1,)),
    "label_offset": ("i", (1,)),
    "content": ("u", (2,)),
    "bytes": ("i", (1,)),
    "mtime_ns": ("i", (1,)),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupKeys:
    """What the n rows of a group are of.

    ``labels`` are class names, none or several where an image can have such; ``content`` uint8 [n, 32] is the
    SHA-256 of each image, zeros where nobody knows (rows that were made elsewhere); ``bytes`` and
    ``mtime_ns`` int64 [n] of its file are cheap to compare.
    """

    split: str
    keys: Sequence[str]
    labels: Sequence[tuple[str, ...]]
    content: NDArray[np.uint8]
    bytes: NDArray[np.int64]
    mtime_ns: NDArray[np.int64]

    def __post_init__(self) -> None:
        lengths = {len(part) for part in (self.keys, self.labels, self.content, self.bytes, self.mtime_ns)}
        if len(lengths) > 1:
            raise ValueError(f"the keys of a row group differ in length: {sorted(lengths)}")

    @classmethod
    def of(
        cls,
        split: str,
        keys: Sequence[str],
        labels: Sequence[tuple[str, ...]],
        files: Sequence[tuple[str, int, int]],
    ) -> GroupKeys:
        """Return them by the SHA-256 ('' for nobody knows), size and modification time of each file."""
        return cls(
            split=split,
            keys=keys,
            labels=labels,
            content=as_content(sha256 for sha256, _, _ in files),
            bytes=np.array([size for _, size, _ in files], dtype=np.int64),
            mtime_ns=np.array([mtime_ns for _, _, mtime_ns in files], dtype=np.int64),
        )

    def __len__(self) -> int:
        return len(self.keys)

    def taken(self, rows: Sequence[int] | NDArray[np.int64]) -> GroupKeys:
        """Return some of the rows."""
        at = np.asarray(rows, dtype=np.int64)
        return GroupKeys(
            split=self.split,
            keys=[self.keys[i] for i in at.tolist()],
            labels=[self.labels[i] for i in at.tolist()],
            content=self.content[at],
            bytes=self.bytes[at],
            mtime_ns=self.mtime_ns[at],
        )

    def digests(self) -> Digests:
        """Return what names the rows."""
        return Digests.of(self.keys, [row.tobytes() for row in self.content], self.labels)


def as_content(hashes: Iterable[str]) -> NDArray[np.uint8]:
    """Return SHA-256 in hexadecimal as uint8 [n, 32], zeros for ''."""
    raw = b"".join(bytes.fromhex(sha256) or UNKNOWN for sha256 in hashes)
    return np.frombuffer(raw, dtype=np.uint8).reshape(-1, HASH_BYTES)


def claim_group(cache: Path, split: str) -> str:
    """Return the name of a new row group, whose folder is made: no other writer has it; UserError if not."""
    rows = cache / ROWS
    check_held(rows / split)
    try:
        rows.mkdir(parents=True, exist_ok=True)
        numbers = [path.name.removeprefix(f"{split}-") for path in rows.glob(f"{split}-*")]
        # A copy that a person has made beside it ("train-00000 (1)") is no row group.
        number = max((int(one) for one in numbers if one.isdecimal()), default=-1) + 1
        while True:
            name = f"{split}-{number:05d}"
            try:
                (rows / name).mkdir()
            except FileExistsError:
                number += 1
            else:
                return name
    except OSError as error:
        raise write_error(rows, error) or error from error


def write_group(
    cache: Path,
    name: str,
    keys: GroupKeys,
    columns: Mapping[str, Mapping[str, Column]],
    about: Mapping[str, Any] | None = None,
) -> list[FileLine]:
    """Write a row group: ``columns`` have the datasets of each of its column files, of one row a key.

    Returns their lines for the journal, that of the keys last: only then the group is there.
    """
    lines = [
        write_column(cache, name, column, datasets, rows=len(keys), about=told_of(keys.keys, datasets))
        for column, datasets in columns.items()
    ]
    return [*lines, write_keys(cache, name, keys, about)]


def told_of(keys: Sequence[str], datasets: Mapping[str, Column]) -> dict[str, Any]:
    """Return what the line of a column remembers of its values, one a key: the digest that names them.

    It is of captions [n], or where there are none of embeddings [n, D], which may have been made elsewhere.
    """
    captions, rows = datasets.get("caption"), datasets.get("embedding")
    values: Iterable[bytes]
    if isinstance(captions, Blobs) and len(keys) and captions.items[0]:
        values = captions.items
    elif isinstance(rows, np.ndarray) and rows.ndim == 2:
        values = map(np.ndarray.tobytes, rows)
    else:
        return {}
    return {DIGEST: {KEYS: digest_of_keys(keys), VALUES: digest_of_values(keys, values)}}


def write_keys(cache: Path, name: str, keys: GroupKeys, about: Mapping[str, Any] | None = None) -> FileLine:
    """Write the keys of a row group, and return their line."""
    class_names = sorted({name for of_row in keys.labels for name in of_row})
    number = {class_name: i for i, class_name in enumerate(class_names)}
    lengths = [len(of_row) for of_row in keys.labels]
    return write_column(
        cache,
        name,
        KEYS,
        {
            "key": texts(keys.keys),
            "key_hash": hashes_of(keys.keys),
            "class_name": texts(class_names),
            "label": np.array([number[one] for of_row in keys.labels for one in of_row], dtype=np.int32),
            # Photos have one each, which needs no saying: 8 bytes a row.
            "label_offset": np.cumsum([0, *lengths] if {*lengths} != {1} else [], dtype=np.int64),
            "content": keys.content,
            "bytes": keys.bytes.astype(np.int64),
            "mtime_ns": keys.mtime_ns.astype(np.int64),
        },
        rows=len(keys),
        about={**(about or {}), "digests": asdict(keys.digests())},
    )


def write_column(
    cache: Path,
    group: str,
    column: str,
    datasets: Mapping[str, Column],
    *,
    rows: int,
    made_from: str = "",
    about: Mapping[str, Any] | None = None,
) -> FileLine:
    """Write one column file of a row group, whole or not at all, and return its line."""
    file = f"{ROWS}/{group}/{column}.h5"
    write_columns(cache / file, datasets)
    return FileLine.of(cache, file, rows=rows, made_from=made_from, about=dict(about or {}))


def read_keys(cache: Path, line: FileLine) -> GroupKeys:
    """Read what the rows of a group are of.

    Raises
    ------
    UserError
        If the file is missing or damaged, or holds what is no key, class or hash.
    """
    file = KeysFile(cache, line)
    keys = file.all_keys()
    with reading(cache / line.file):
        check_inner("a row", keys)
        if not np.array_equal(hashes_of(keys), file.hashes):
            raise ValueError("its hashes are not those of its keys")
    return GroupKeys(
        split=line.group.rpartition("-")[0],
        keys=keys,
        labels=file.class_names_of_rows(),
        content=file.content,
        bytes=file.bytes,
        mtime_ns=file.mtime_ns,
    )


def _check(raw: Mapping[str, NDArray[Any]], keys: int, rows: int, names: Sequence[str]) -> None:
    lengths = {keys, *(len(raw[name]) for name in ("key_hash", "content", "bytes", "mtime_ns"))}
    if lengths != {rows} or len(_offsets(raw)) != rows + 1 or raw["content"].shape[1] != HASH_BYTES:
        raise ValueError(f"it holds {keys:,} keys, the journal says {rows:,} rows")
    if raw["key_hash"].dtype != np.uint64 or raw["content"].dtype != np.uint8:
        raise ValueError("its hashes are no hashes")
    label = raw["label"]
    if len(raw["label_offset"]) or len(label) != rows:
        checked_offset(raw["label_offset"], len(label), "label")
    if len(label) and not 0 <= label.min() <= label.max() < len(names):
        raise ValueError("it holds labels of no class")
    check_class_names(names)


def _offsets(raw: Mapping[str, NDArray[Any]]) -> NDArray[np.int64]:
    """Return where the labels of each row begin; none are written where every row has one."""
    offset: NDArray[np.int64] = raw["label_offset"]
    return offset if len(offset) else np.arange(len(raw["label"]) + 1)


class KeysFile:
    """The keys of n rows, mapped: what is not asked for is not read.

    ``hashes`` uint64 [n] are those of the keys, ``content`` uint8 [n, 32] the SHA-256 of every image;
    ``bytes`` and ``mtime_ns`` int64 [n] are of its file.
    """

    def __init__(self, cache: Path, line: FileLine) -> None:
        """Open it; UserError as :func:`read_keys`, but for the keys, which are read when asked for."""
        self._path, self.rows = cache / line.file, line.rows
        with reading(self._path, size=line.bytes):
            self._raw = map_columns(self._path, {**_ARRAYS, "class_name": BLOBS, **in_file("key")})
            self.class_names = self._raw["class_name"].texts()
            _check(self._raw, len(self._raw["key" + OFFSET]) - 1, line.rows, self.class_names)
        self._has_one_label = not len(self._raw["label_offset"])
        self.hashes: NDArray[np.uint64] = self._raw["key_hash"]
        self.content: NDArray[np.uint8] = self._raw["content"]
        self.bytes: NDArray[np.int64] = self._raw["bytes"]
        self.mtime_ns: NDArray[np.int64] = self._raw["mtime_ns"]

    @cached_property
    def _keys(self) -> MappedBlobs:
        # Looked at when the first is asked for: training asks for none, and offsets are 8 bytes a row.
        with reading(self._path):
            return MappedBlobs(self._raw, "key")

    def all_keys(self) -> list[str]:
        """Return every key."""
        return self._keys.texts()

    def key(self, row: int) -> str:
        """Return one key."""
        raw: bytes = self._keys[row]
        return raw.decode("utf-8", "surrogateescape")

    def digests(self, rows: Sequence[int]) -> Digests:
        """Return what names some of the rows."""
        return Digests.of(
            [self.key(row) for row in rows],
            [self.content[row].tobytes() for row in rows],
            [self._names(row) for row in rows],
        )

    def _names(self, row: int) -> tuple[str, ...]:
        offset, label = self._raw["label_offset"], self._raw["label"]
        start, end = (offset[row], offset[row + 1]) if len(offset) else (row, row + 1)
        return tuple(self.class_names[number] for number in label[start:end])

    def class_names_of_rows(self) -> list[tuple[str, ...]]:
        """Return the class names of every row."""
        names, label = self.class_names, self._raw["label"].tolist()
        bounds = itertools.pairwise(_offsets(self._raw).tolist())
        return [tuple(names[number] for number in label[start:end]) for start, end in bounds]

    @property
    def has_at_most_one_label(self) -> bool:
        """Whether no row has several labels."""
        return self._has_one_label or not (np.diff(self._raw["label_offset"]) > 1).any()

    def label_codes(self) -> NDArray[np.uint64]:
        """Return for every row's classes the sum of their names' hashes modulo 2**64, uint64 [n]."""
        own = hashes_of(self.class_names)[self._raw["label"]]
        if self._has_one_label:
            return own
        sums, offset = np.concatenate([np.zeros(1, np.uint64), np.cumsum(own)]), _offsets(self._raw)
        return np.asarray(sums[offset[1:]] - sums[offset[:-1]])

    def labels(self, class_names: Sequence[str], *, several: bool) -> NDArray[np.int64]:
        """Return the rows' labels as numbers of ``class_names``.

        int64 [n], -1 for a row without a label or of a class that is not among them; with ``several`` [n, C]
        of 0 and 1.
        """
        number = {name: i for i, name in enumerate(class_names)}
        own = np.array([number.get(name, -1) for name in self.class_names], dtype=np.int64)
        label = own[self._raw["label"]]
        if self._has_one_label and not several:
            return label
        offset = _offsets(self._raw)
        if several:
            many = np.zeros((self.rows, len(class_names)), dtype=np.int64)
            rows = np.repeat(np.arange(self.rows), np.diff(offset))
            many[rows[label >= 0], label[label >= 0]] = 1
            return many
        one = np.full(self.rows, -1, dtype=np.int64)
        has = np.diff(offset) > 0
        one[has] = label[offset[:-1][has]]
        return one
