"""Tables of pictures, by reference or as bytes, as the sources of their splits.

A chunk is a group of a file's rows, or some thousand rows of a large one. Without a column of keys or paths a
key is ``FILE/ROW``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from cache.runtime.errors import UserError
from cache.sources.accounts import Reason
from cache.sources.arrow_files import PATH, TableFile
from cache.sources.class_numbers import class_name
from cache.sources.file_list import pictures_at
from cache.sources.list_columns import Columns
from cache.sources.pictures import PictureSample
from cache.sources.places import status_of
from cache.sources.records import (
    NO_NUMBER,
    Record,
    RecordReader,
    RecordSource,
    Row,
    SplitSurvey,
    caption_of_cell,
    folder_of,
    labels_of_cell,
    text_of_cell,
)
from cache.sources.samples import Chunk, Source
from cache.sources.source_options import SourceOptions

# Rows of a chunk at most.
CHUNK_ROWS = 8192


@dataclass(frozen=True, kw_only=True, slots=True)
class Table:
    """A file of a table: what it is called in keys and chunks, its columns, and its classes' names by number.

    ``image_path`` is the column that says where a picture lies that is not in the file, '' for none.
    """

    file: TableFile
    name: str
    columns: Columns
    image_path: str
    names: tuple[str, ...]
    split: str

    @classmethod
    def open(cls, file: TableFile, name: str, split: str, options: SourceOptions) -> Table:
        """Look at a file's schema; UserError where it has no pictures, or not the columns that are given."""
        schema = file.schema()
        columns = Columns.among(schema.names, options.columns, file.place, images=schema.images)
        inner = f"{columns.image}.{PATH}"
        return cls(
            file=file,
            name=name,
            columns=columns,
            image_path=inner if columns.image and inner in schema.names else "",
            names=options.names or tuple(schema.class_names.get(columns.label, ())),
            split=split,
        )

    def pieces(self) -> Iterator[Piece]:
        """Yield the chunks of the file."""
        before = 0
        for group, rows in enumerate(self.file.groups()):
            for start in range(0, rows, CHUNK_ROWS):
                id = f"{self.name}:{group}" + (f":{start}" if rows > CHUNK_ROWS else "")
                own = min(CHUNK_ROWS, rows - start)
                yield Piece(id=id, table=self, group=group, start=start, rows=own, first=before + start)
            before += rows


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """A chunk: ``rows`` of a group from ``start``; the first is the ``first`` of the file."""

    id: str
    table: Table
    group: int
    start: int
    rows: int
    first: int

    def records(self) -> list[Record]:
        """Return what its rows say; UserError for a cell that says nothing of use."""
        columns, table = self.table.columns, self.table
        read = [*dict.fromkeys([*columns.names, *([table.image_path] if table.image_path else [])])]
        values = table.file.values(self.group, self.start, self.rows, read) if read else {}
        return [self._record(i, {name: cells[i] for name, cells in values.items()}) for i in range(self.rows)]

    def _record(self, row: int, cells: Mapping[str, Any]) -> Record:
        table, columns, number = self.table, self.table.columns, self.first + row
        where = f"{table.file.place}, row {number}"
        try:
            labels = labels_of_cell(cells.get(columns.label), columns.several)
            if table.names:
                labels = tuple(class_name(one, table.names, where) for one in labels if one != NO_NUMBER)
            key = text_of_cell(cells.get(columns.key))
            return Record(
                number=number,
                path=text_of_cell(cells.get(columns.path or table.image_path)),
                labels=labels,
                split=text_of_cell(cells.get(columns.split)) or table.split,
                key=key or ("" if columns.path else f"{table.name}/{number:07d}"),
                caption=caption_of_cell(cells.get(columns.caption)) or None,
            )
        except ValueError as error:
            raise UserError(f"{where}: {error}", fix="mend that row, or name another column.") from error


@dataclass(frozen=True, kw_only=True, slots=True)
class TableSample(PictureSample):
    """A picture that lies in a table: it is read with its group, of which a process keeps the last."""

    file: TableFile
    column: str
    group: int
    row: int

    def content(self) -> bytes:
        """Return the picture's bytes; OSError where there are none."""
        return self.file.picture(self.group, self.row, self.column)


class TableSource(RecordSource):
    """The pictures of one split of some files."""

    def __init__(
        self, split: str, reader: RecordReader, survey: SplitSurvey, pieces: Mapping[str, Piece]
    ) -> None:
        super().__init__(split, reader, survey)
        self._pieces = {id: pieces[id] for id in self.chunk_ids}

    def chunks(self) -> Sequence[Chunk]:
        """Return the groups of rows, with size and time of their file in their identity."""
        places = {piece.table.file.place: "" for piece in self._pieces.values()}
        status = {place: status_of(place) for place in places}
        return [
            Chunk(id=id, identity=self._identity(piece, status[piece.table.file.place]))
            for id, piece in self._pieces.items()
        ]

    def _identity(self, piece: Piece, status: tuple[int, int]) -> str:
        if not piece.table.columns.image:  # files beside it may have changed, and it may not
            own = [(s.key, s.place, s.file_bytes, s.mtime_ns) for s in self._listed(piece.id).samples]
            return sha256(repr((status, own)).encode("utf-8", "surrogateescape")).hexdigest()
        return sha256(repr((status, piece.start, piece.rows)).encode()).hexdigest()

    def records(self, chunk: str) -> Sequence[Record]:
        """Return the records of a group."""
        return self._pieces[chunk].records()

    def pictures(self, chunk: str, rows: Sequence[Row]) -> Sequence[PictureSample | Reason]:
        """Return where the picture of each row is: in the file, or where that says that it lies."""
        piece = self._pieces[chunk]
        table, decoding = piece.table, self.reader.options.decoding
        if not table.columns.image:
            return pictures_at(table.file.place, rows, decoding)
        there = table.file.has_picture(piece.group, piece.start, piece.rows, table.columns.image)
        outside = iter(
            pictures_at(
                table.file.place,
                [row for row in rows if not there[row.record.number - piece.first]],
                decoding,
            )
        )
        status = status_of(table.file.place)
        return [
            self._inside(piece, row, status) if there[row.record.number - piece.first] else next(outside)
            for row in rows
        ]

    def _inside(self, piece: Piece, row: Row, status: tuple[int, int]) -> TableSample:
        return TableSample(
            key=row.key,
            place=piece.table.file.place,
            labels=row.labels,
            caption=row.caption,
            size=0,
            file_bytes=status[0],
            mtime_ns=status[1],
            decoding=self.reader.options.decoding,
            file=piece.table.file,
            column=piece.table.columns.image,
            group=piece.group,
            row=piece.start + row.record.number - piece.first,
        )


def open_tables(
    place: str, files: Sequence[tuple[TableFile, str]], options: SourceOptions, split: str
) -> dict[str, Source]:
    """Return the splits of some files, each with the split that its name says, or all of them as ``split``.

    Raises
    ------
    UserError
        If a file cannot be read, or has no pictures.
    """
    names = [os.path.splitext(os.path.basename(file.place))[0] for file, _ in files]
    if len({*names}) < len(names):
        shared = os.path.commonpath([file.place for file, _ in files])
        names = [os.path.splitext(os.path.relpath(file.place, shared))[0] for file, _ in files]
    tables = [Table.open(file, name, own, options) for (file, own), name in zip(files, names, strict=True)]
    pieces = {piece.id: piece for table in tables for piece in table.pieces()}
    # Each file has put names for its numbers already.
    reader = RecordReader(
        place=place, unit="row", folder=folder_of(files[0][0].place), options=options, given=split
    )
    surveys = reader.survey((id, piece.records()) for id, piece in pieces.items())
    if not surveys:
        raise UserError(f"{place} has no rows", fix="give a table with a picture a row.")
    return {name: TableSource(name, reader, survey, pieces) for name, survey in surveys.items()}
