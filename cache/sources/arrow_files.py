"""The door to pyarrow (extra ``parquet``): tables in ``.parquet`` and ``.arrow`` files, read piece by piece.

A file is in groups of rows: those of parquet, or an Arrow stream's batches. Nothing of a file is executed,
and what is kept of one in a process is of constant size.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from threading import RLock
from typing import Any

from cache.runtime.errors import UserError, missing_package, reason_of
from cache.runtime.system_errors import read_error
from cache.sources.places import cannot_be_read, is_remote, open_binary

# Files and groups that a process keeps: who reads a row reads its neighbours next.
FILES_KEPT, GROUPS_KEPT = 8, 2
# A column of pictures that takes more in a group, in bytes, is read so many rows at a time.
GROUP_BYTES, WINDOW_ROWS = 2**26, 64
# What Hugging Face's Image is made of: the picture's file, or where it lies.
BYTES, PATH = "bytes", "path"


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSchema:
    """The columns of a table: which ``images`` may hold pictures, likely ones first, and which hold classes.

    ``names`` has the fields of a picture's column too, as ``image.path``. ``class_names`` are by column.
    """

    names: tuple[str, ...]
    images: tuple[str, ...]
    class_names: Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, slots=True)
class TableFile(ABC):
    """A file that holds a table."""

    place: str

    @abstractmethod
    def groups(self) -> Sequence[int]:
        """Return how many rows each group of rows has."""

    @abstractmethod
    def schema(self) -> TableSchema:
        """Return what its columns are."""

    @abstractmethod
    def values(self, group: int, start: int, rows: int, names: Sequence[str]) -> Mapping[str, list[Any]]:
        """Return some rows of columns of a group, as lists of Python's values."""

    @abstractmethod
    def has_picture(self, group: int, start: int, rows: int, column: str) -> Sequence[bool]:
        """Say of some rows whether they hold a picture."""

    @abstractmethod
    def picture(self, group: int, row: int, column: str) -> bytes:
        """Return the bytes of a picture; OSError where there are none."""


class ParquetTable(TableFile):
    """A ``.parquet`` file, here or on a server."""

    __slots__ = ()

    def groups(self) -> Sequence[int]:
        """Return how many rows each group of rows has."""
        with _reading(self.place):
            about = _parquet(self.place, os.getpid()).metadata
            return [about.row_group(group).num_rows for group in range(about.num_row_groups)]

    def schema(self) -> TableSchema:
        """Return what its columns are."""
        with _reading(self.place):
            return _schema(_parquet(self.place, os.getpid()).schema_arrow)

    def values(self, group: int, start: int, rows: int, names: Sequence[str]) -> Mapping[str, list[Any]]:
        """Return some rows of columns of a group, as lists of Python's values."""
        with _reading(self.place):
            table = _parquet_group(self.place, group, tuple(names), os.getpid()).slice(start, rows)
            return {name: _field(table, name).to_pylist() for name in names}

    def has_picture(self, group: int, start: int, rows: int, column: str) -> Sequence[bool]:
        """Say of some rows whether they hold a picture: by what the file says of the group where it does."""
        with _reading(self.place):
            leaf, about = self._leaf(group, column)
            told = about.statistics
            if told is not None and told.has_null_count and not told.null_count:
                return [True] * rows
            read = _parquet(self.place, os.getpid()).iter_batches(
                WINDOW_ROWS, row_groups=[group], columns=[leaf], use_threads=False
            )
            valid = [one for batch in read for one in _field(batch, leaf).is_valid().to_pylist()]
            return valid[start : start + rows]

    def picture(self, group: int, row: int, column: str) -> bytes:
        """Return the bytes of a picture; OSError where there are none."""
        with _reading(self.place):
            leaf, about = self._leaf(group, column)
            if about.total_uncompressed_size <= GROUP_BYTES:
                whole = _parquet_group(self.place, group, (leaf,), os.getpid())
                value = _field(whole, leaf)[row]
            else:
                value = _window(self.place, group, leaf, os.getpid()).value(row)
        return _bytes(value, self.place)

    def _leaf(self, group: int, column: str) -> tuple[str, Any]:
        """Return the name of the column with the bytes of pictures, and what the file says of it."""
        about = _parquet(self.place, os.getpid()).metadata.row_group(group)
        for number in range(about.num_columns):
            if about.column(number).path_in_schema in (column, f"{column}.{BYTES}"):
                return about.column(number).path_in_schema, about.column(number)
        raise UserError(f"{self.place} has no bytes in its column {column!r}", fix="give --image-column.")


class ArrowTable(TableFile):
    """An Arrow stream in a file here, as Hugging Face ``datasets`` writes it; it is mapped into memory."""

    __slots__ = ()

    def groups(self) -> Sequence[int]:
        """Return how many rows each batch has."""
        with _reading(self.place):
            return [batch.num_rows for batch in _arrow(self.place, os.getpid())[1]]

    def schema(self) -> TableSchema:
        """Return what its columns are."""
        with _reading(self.place):
            return _schema(_arrow(self.place, os.getpid())[0])

    def values(self, group: int, start: int, rows: int, names: Sequence[str]) -> Mapping[str, list[Any]]:
        """Return some rows of columns of a batch, as lists of Python's values."""
        with _reading(self.place):
            return {name: self._column(group, name).slice(start, rows).to_pylist() for name in names}

    def has_picture(self, group: int, start: int, rows: int, column: str) -> Sequence[bool]:
        """Say of some rows whether they hold a picture."""
        with _reading(self.place):
            valid: list[bool] = self._pictures(group, column).slice(start, rows).is_valid().to_pylist()
            return valid

    def picture(self, group: int, row: int, column: str) -> bytes:
        """Return the bytes of a picture; OSError where there are none."""
        with _reading(self.place):
            value = self._pictures(group, column)[row]
        return _bytes(value, self.place)

    def _pictures(self, group: int, column: str) -> Any:
        import pyarrow as pa

        own = self._column(group, column)
        return self._column(group, f"{column}.{BYTES}") if pa.types.is_struct(own.type) else own

    def _column(self, group: int, name: str) -> Any:
        column = _field(_arrow(self.place, os.getpid())[1][group], name)
        # Offsets that lead out of the file would be followed.
        column.validate(full=True)
        return column


class _Window:
    """The rows of a large group one after the other: what was passed is read again from the group's start."""

    def __init__(self, place: str, group: int, leaf: str) -> None:
        self._place, self._group, self._leaf = place, group, leaf
        self._start()

    def _start(self) -> None:
        file = _parquet(self._place, os.getpid())
        self._batches = file.iter_batches(
            WINDOW_ROWS, row_groups=[self._group], columns=[self._leaf], use_threads=False
        )
        self._first, self._column = 0, ()

    def value(self, row: int) -> Any:
        """Return the value of a row."""
        if row < self._first:
            self._start()
        while row >= self._first + len(self._column):
            self._first += len(self._column)
            self._column = _field(next(self._batches), self._leaf)
        return self._column[row - self._first]


@lru_cache(maxsize=1)
def _lock(process: int) -> RLock:
    """Return what a process's threads read under: one decodes and another lists. A fork makes its own."""
    del process
    return RLock()


@lru_cache(maxsize=FILES_KEPT)
def _parquet(place: str, process: int) -> Any:
    """Return an open file: one a process, for a forked one would share its place in it."""
    import pyarrow.parquet as pq

    del process
    if not is_remote(place):
        return pq.ParquetFile(place, buffer_size=2**20, pre_buffer=False)
    return pq.ParquetFile(open_binary(place), pre_buffer=False)


@lru_cache(maxsize=GROUPS_KEPT + 2)
def _parquet_group(place: str, group: int, names: tuple[str, ...], process: int) -> Any:
    return _parquet(place, process).read_row_group(group, columns=[*names], use_threads=False)


@lru_cache(maxsize=GROUPS_KEPT)
def _window(place: str, group: int, leaf: str, process: int) -> _Window:
    del process
    return _Window(place, group, leaf)


@lru_cache(maxsize=FILES_KEPT)
def _arrow(place: str, process: int) -> tuple[Any, Sequence[Any]]:
    """Return a file's schema, and its batches, which are of the mapped file and take no memory."""
    import pyarrow as pa

    del process
    with pa.memory_map(place, "r") as source:
        stream = pa.ipc.open_stream(source)
        return stream.schema, [*stream]


def _schema(schema: Any) -> TableSchema:
    import pyarrow as pa

    features = _features(schema.metadata or {})
    names, images = [], []
    for field in schema:
        names.append(field.name)
        if pa.types.is_struct(field.type):
            inner = [one.name for one in field.type]
            names += [f"{field.name}.{one}" for one in inner]
            # Where all lie elsewhere none has any.
            own = field.type.field(BYTES).type if BYTES in inner else None
            if own is not None and (pa.types.is_null(own) or _is_bytes(own)):
                images.append(field.name)
        elif _is_bytes(field.type):
            images.append(field.name)
    likely = ("image", "img", "jpg", "jpeg", "png", "webp", "picture", "photo", "image_bytes", "bytes")
    images.sort(key=lambda name: likely.index(name.lower()) if name.lower() in likely else len(likely))
    classes = {name: _class_names(features.get(name)) for name in schema.names}
    return TableSchema(
        names=tuple(names),
        images=tuple(images),
        class_names={name: own for name, own in classes.items() if own},
    )


def _is_bytes(type: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_binary(type) or pa.types.is_large_binary(type))


def _features(metadata: Mapping[bytes, bytes]) -> Mapping[str, Any]:
    """Return what Hugging Face ``datasets`` says of the columns; nothing where it says nothing."""
    try:
        features = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _class_names(feature: Any) -> tuple[str, ...]:
    """Return the names of a ClassLabel, or of a list of them."""
    if isinstance(feature, list) and len(feature) == 1:
        feature = feature[0]
    if isinstance(feature, dict) and isinstance(feature.get("feature"), dict):
        feature = feature["feature"]
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return ()
    names = feature.get("names")
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _field(table: Any, name: str) -> Any:
    """Return a column, or the field of one that is called ``COLUMN.FIELD``, of a table or a batch."""
    import pyarrow.compute as pc

    if name in table.schema.names:
        return table.column(name)
    column, _, field = name.rpartition(".")
    return pc.struct_field(table.column(column), field)


def _bytes(value: Any, place: str) -> bytes:
    content = value.as_py()
    if not isinstance(content, bytes):
        raise OSError(f"{place} holds no picture there")
    return content


@contextmanager
def _reading(place: str) -> Iterator[None]:
    """Turn what pyarrow says of a file into one line."""
    try:
        import pyarrow as pa
    except ImportError as error:
        raise missing_package(error, extra="parquet") from error
    try:
        with _lock(os.getpid()):
            yield
    except (FileNotFoundError, PermissionError) as error:
        raise cannot_be_read(place, error) from error
    except (pa.ArrowException, OSError, StopIteration, IndexError) as error:
        raise read_error(place, error) or UserError(
            f"{place} is cut, or damaged ({reason_of(error)})", fix="write or copy it again."
        ) from error
