"""How the lines of a list of pictures are read: ``.csv``, ``.tsv`` and ``.jsonl``, from any byte on."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any, BinaryIO

from cache.runtime.errors import UserError
from cache.runtime.system_errors import read_error
from cache.sources.list_columns import Columns
from cache.sources.places import cannot_be_read, open_binary
from cache.sources.records import Record, caption_of_cell, labels_of_cell, text_of_cell

LISTS = (".csv", ".tsv", ".jsonl")
# Records of a block.
BLOCK = 8192
# No line is longer, in bytes: what claims to be is no list.
LINE_BYTES = 2**24
# What may stand between the cells of a .csv; the first of several that fit alike.
_DELIMITERS = (",", ";", "\t")


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Some lines of a list: the byte where the first begins, its number, and how many records there are."""

    start: int
    line: int
    records: int


@dataclass(frozen=True, kw_only=True)
class ListFile:
    """A list: how it is written, what its columns are called, and where its records begin.

    ``names`` are those of a line's cells in their order; none of a ``.jsonl``, where each line says them.
    """

    place: str
    names: tuple[str, ...]
    columns: Columns
    delimiter: str
    start: int
    line: int

    @classmethod
    def open(cls, place: str, given: Columns) -> ListFile:
        """Look at the head of a list; UserError where it is not there, or has not the columns."""
        with _opened(place) as file:
            lines = _Lines(file, place)
            if place.lower().endswith(".jsonl"):
                # The first line need not have all: what has no label may not name it.
                names = dict.fromkeys(chain.from_iterable(islice(_objects(lines, place), BLOCK)))
                if not names:
                    raise UserError(f"{place} is empty", fix='write a line of each picture: {"path": ...}.')
                columns = Columns.among([*names], given, place)
                return cls(place=place, names=(), columns=columns, delimiter="", start=0, line=1)
            first = next((text for text in lines if text.strip()), "")
            if not first:
                raise UserError(f"{place} is empty", fix="write a line of column names first.")
            delimiter = _delimiter_of(first, place)
            names_of_cells = tuple(name.strip() for name in _cells(first, delimiter))
            columns = Columns.among(names_of_cells, given, place)
            return cls(
                place=place,
                names=names_of_cells,
                columns=columns,
                delimiter=delimiter,
                start=lines.at,
                line=lines.line,
            )

    def blocks(self) -> Iterator[tuple[Block, list[Record]]]:
        """Yield every block of the list, and its records."""
        with _opened(self.place) as file:
            lines = _Lines(file, self.place, self.start, self.line)
            records = self._records(lines)
            while True:
                start, line = lines.at, lines.line
                some = [*islice(records, BLOCK)]
                if not some:
                    return
                yield Block(start=start, line=line, records=len(some)), some

    def read(self, block: Block) -> list[Record]:
        """Return the records of a block."""
        with _opened(self.place) as file:
            lines = _Lines(file, self.place, block.start, block.line)
            return [*islice(self._records(lines), block.records)]

    def _records(self, lines: _Lines) -> Iterator[Record]:
        if not self.names:
            for cells in _objects(lines, self.place):
                yield self._record(cells, lines.line - 1)
            return
        for line, row in _rows(lines, self.place, self.delimiter):
            if len(row) > len(self.names) and any(row[len(self.names) :]):
                raise UserError(
                    f"{self.place}, line {line} has {len(row)} cells for {len(self.names)} columns",
                    fix="put a cell that holds the separator in quotes.",
                )
            # Cells that a short row leaves out are empty.
            yield self._record(dict(zip(self.names, row, strict=False)), line)

    def _record(self, cells: Mapping[str, Any], line: int) -> Record:
        columns = self.columns
        try:
            return Record(
                line,
                text_of_cell(cells.get(columns.path)),
                labels_of_cell(cells.get(columns.label), columns.several),
                text_of_cell(cells.get(columns.split)),
                text_of_cell(cells.get(columns.key)),
                caption_of_cell(cells.get(columns.caption)) or None,
            )
        except ValueError as error:
            raise UserError(f"{self.place}, line {line}: {error}", fix="mend that line.") from error


class _Lines:
    """The lines of a file as texts, and the byte and the number of the line that comes next."""

    def __init__(self, file: BinaryIO, place: str, at: int = 0, line: int = 1) -> None:
        file.seek(at)
        self._file, self._place, self.at, self.line = file, place, at, line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline(LINE_BYTES)
        if not raw:
            raise StopIteration
        if len(raw) == LINE_BYTES:
            raise UserError(
                f"{self._place}, line {self.line} is longer than {LINE_BYTES:,} bytes",
                fix="give a list with a picture a line.",
            )
        try:
            text = raw.decode("utf-8-sig" if self.at == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self._place}, line {self.line} is not UTF-8 ({error.reason})", fix="save it as UTF-8."
            ) from error
        self.at += len(raw)
        self.line += 1
        return text


def _delimiter_of(head: str, place: str) -> str:
    if place.lower().endswith(".tsv"):
        return "\t"
    return max(_DELIMITERS, key=lambda one: len(_cells(head, one)))


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter), [])


def _rows(lines: _Lines, place: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the number of the line where a row begins, and its cells; lines with nothing are passed over."""
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    while True:
        line = lines.line
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{place}, the row that begins on line {line}: {error}",
                fix='mend it: a quote that is opened is closed, and one inside of quotes is written "".',
            ) from error
        if row is None:
            return
        if row:
            yield line, row


def _objects(lines: _Lines, place: str) -> Iterator[Mapping[str, Any]]:
    for text in lines:
        if text.strip():
            try:
                value = json.loads(text)
            except (ValueError, RecursionError) as error:
                raise UserError(
                    f"{place}, line {lines.line - 1}: no JSON ({error})", fix="mend it."
                ) from error
            if not isinstance(value, dict):
                raise UserError(f"{place}, line {lines.line - 1} is no object", fix="write {...} a line.")
            yield value


def _opened(place: str) -> BinaryIO:
    try:
        return open_binary(place)
    except OSError as error:
        raise read_error(place, error) or cannot_be_read(place, error) from error
