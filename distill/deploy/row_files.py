"""Embeddings as they come into one file, whole or not at all: ``.parquet``, or ``.npy`` with its keys beside.

Neither holds more than some thousand rows in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import WrongOption, missing_package

PARQUET, NPY = ".parquet", ".npy"
# Of parquet: what is read in one piece.
GROUP_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class RowNames:
    """What a row is of: its key, and the names of its split and its classes where it has any."""

    key: str
    split: str = ""
    classes: tuple[str, ...] = ()


class RowWriter(Protocol):
    """Takes rows [n, D] float32 and what they are of."""

    def add(self, names: Sequence[RowNames], rows: NDArray[np.float32]) -> None:
        """Write some more."""


def check_out(out: Path) -> None:
    """Refuse a file that is of neither format; WrongOption."""
    if out.suffix not in (PARQUET, NPY):
        raise WrongOption(f"--out {out} ends in neither {PARQUET} nor {NPY}", fix="name it rows.parquet.")


def keys_file(out: Path) -> Path | None:
    """Return the file of keys beside a file of rows; None where that has them itself."""
    return out.with_suffix(".keys.txt") if out.suffix == NPY else None


@contextmanager
def row_writer(out: Path, *, embed_dim: int) -> Iterator[RowWriter]:
    """Yield what writes a file of rows, which is there when the block has ended well, and else as it was.

    Parquet has the columns ``key``, ``split``, ``class`` (null where there is none; several of one picture
    are joined by ``|``) and ``embedding``, a list of D float32. Beside ``NAME.npy`` [N, D], ``NAME.keys.txt``
    has a line a row: KEY, or SPLIT/KEY; what would end a line is written as ``\\n``.
    """
    check_out(out)
    keys = keys_file(out)
    if keys is None:
        with replacing(out) as temporary:
            parquet = _Parquet(temporary, embed_dim)
            try:
                yield parquet
            finally:
                parquet.close()
        return
    # The keys are there first: rows of no keys would say nothing.
    with (
        replacing(out) as rows_now,
        replacing(keys) as keys_now,
        open(rows_now, "wb+") as rows,
        open(keys_now, "w", encoding="utf-8", errors="surrogateescape") as lines,
    ):
        array = _Npy(rows, lines, embed_dim)
        yield array
        array.close()


class _Parquet:
    """Writes a group of rows at a time."""

    def __init__(self, path: Path, embed_dim: int) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as pq
        except ImportError as error:
            raise missing_package(error, extra="parquet") from error
        self._pa, self._dim = pa, embed_dim
        text = pa.string()
        columns = [("key", text), ("split", text), ("class", text)]
        self._schema = pa.schema([*columns, ("embedding", pa.list_(pa.float32(), embed_dim))])
        self._writer = pq.ParquetWriter(path, self._schema)
        self._names: list[RowNames] = []
        self._rows: list[NDArray[np.float32]] = []

    def add(self, names: Sequence[RowNames], rows: NDArray[np.float32]) -> None:
        self._names += names
        self._rows.append(rows)
        if len(self._names) >= GROUP_ROWS:
            self._write()

    def close(self) -> None:
        if self._names:
            self._write()
        self._writer.close()

    def _write(self) -> None:
        pa, flat = self._pa, np.concatenate(self._rows).astype(np.float32).reshape(-1)
        texts = [
            [_utf8(name.key) for name in self._names],
            [name.split or None for name in self._names],
            [_utf8("|".join(name.classes)) or None for name in self._names],
        ]
        columns: list[Any] = [pa.array(column, pa.string()) for column in texts]
        rows = pa.FixedSizeListArray.from_arrays(pa.array(flat), self._dim)
        self._writer.write_table(pa.Table.from_arrays([*columns, rows], schema=self._schema))
        self._names, self._rows = [], []


class _Npy:
    """Writes rows as they come; how many there are is known at the end, and written then."""

    def __init__(self, rows: Any, lines: Any, embed_dim: int) -> None:
        self._file, self._lines, self._dim, self._count = rows, lines, embed_dim, 0
        self._header()
        self._begin = rows.tell()

    def add(self, names: Sequence[RowNames], rows: NDArray[np.float32]) -> None:
        self._file.write(np.ascontiguousarray(rows, dtype="<f4").tobytes())
        for name in names:
            key = f"{name.split}/{name.key}" if name.split else name.key
            self._lines.write(key.replace("\r", "\\r").replace("\n", "\\n") + "\n")
        self._count += len(names)

    def close(self) -> None:
        self._file.seek(0)
        self._header()
        # numpy leaves room for the first number of a shape to grow.
        assert self._file.tell() == self._begin

    def _header(self) -> None:
        about = {"descr": "<f4", "fortran_order": False, "shape": (self._count, self._dim)}
        npy.write_array_header_1_0(self._file, about)


def _utf8(name: str) -> str:
    """Return a name as parquet can hold it: what is not UTF-8 in it is written as an escape."""
    return name.encode("utf-8", "backslashreplace").decode()
