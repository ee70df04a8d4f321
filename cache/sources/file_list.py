"""Lists of pictures: ``.csv``, ``.tsv`` and ``.jsonl`` with a path or address a line, and what else is known.

Columns are found by their usual names (:data:`USUAL`) unless others are given. Relative paths are from the
list's folder. A chunk is some thousand lines; the file is never in memory as a whole.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from typing import Any, BinaryIO

from cache.runtime.errors import UserError, nearest_names
from cache.sources.accounts import Account, Reason
from cache.sources.class_numbers import class_name
from cache.sources.listed_chunks import ChunkListing, ListedChunks
from cache.sources.names import check_inner
from cache.sources.pictures import PictureSample
from cache.sources.places import beside, is_remote, open_binary, status_of
from cache.sources.samples import Chunk, Source
from cache.sources.source_options import ListColumns, SourceOptions
from cache.sources.splits import split_name

LISTS = (".csv", ".tsv", ".jsonl")
# What a column is usually called, in the order that they are looked for; case makes no difference.
USUAL = {
    "path": ("path", "filepath", "file_path", "filename", "file_name", "file", "image_path", "url", "image"),
    "label": ("label", "labels", "class", "class_name", "category", "target"),
    "split": ("split", "subset"),
    "key": ("key", "id", "image_id"),
    "caption": ("caption", "text", "title"),
}
# Lines of a chunk, and files that one thread looks at in one go.
CHUNK_LINES, FILES_AT_ONCE, THREADS = 8192, 512, 16
# Between several classes in a cell of a column that is called labels.
SEVERAL = ";"


@dataclass(frozen=True, kw_only=True, slots=True)
class Columns:
    """What the columns of a list are called; '' where there is none."""

    path: str
    label: str = ""
    split: str = ""
    key: str = ""
    caption: str = ""

    @property
    def several(self) -> bool:
        """Whether a cell of the labels may hold several, by its name."""
        return self.label.lower() == "labels"

    @classmethod
    def among(cls, names: Sequence[str], given: ListColumns, place: str) -> Columns:
        """Return the columns of a list that has these.

        Raises
        ------
        UserError
            If one that is given is not there, or none looks like paths.
        """
        chosen: dict[str, str] = {}
        by_name = {name.lower(): name for name in reversed(names)}
        for what, usual in USUAL.items():
            name = getattr(given, what)
            if name and name not in names:
                raise UserError(
                    f"{place} has no column {name!r} (it has {', '.join(map(repr, names)) or 'none'})",
                    fix=f"{nearest_names(name, names)}give --{what}-column one of these.",
                )
            chosen[what] = name or next((by_name[one] for one in usual if one in by_name), "")
        if not chosen["path"]:
            raise UserError(
                f"{place} has no column of paths (it has {', '.join(map(repr, names)) or 'none'})",
                fix=f"call one {USUAL['path'][0]!r}, or name it with --path-column.",
            )
        return cls(**chosen)


@dataclass(frozen=True, kw_only=True, slots=True)
class Record:
    """A line of a list: ``labels`` are class names, or numbers; ``split`` is '' where it has none."""

    line: int
    path: str
    labels: tuple[str, ...] = ()
    split: str = ""
    key: str = ""
    caption: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Block:
    """Lines of a list: the byte where the first begins, its number, and how many records there are."""

    start: int
    line: int
    records: int


@dataclass(frozen=True, kw_only=True)
class ListFile:
    """A list: how it is written, what its columns are called, and the byte where its records begin."""

    place: str
    names: tuple[str, ...]
    columns: Columns
    start: int
    line: int

    @classmethod
    def open(cls, place: str, given: ListColumns) -> ListFile:
        """Look at the head of a list; UserError where it is not there, or has not the columns."""
        with _opened(place) as file:
            lines = _Lines(file, place)
            try:
                first = next(_rows(lines, place))
            except StopIteration:
                raise UserError(f"{place} is empty", fix="write a line of column names first.") from None
            if place.endswith(".jsonl"):
                names, start, line = tuple(first), 0, 1
            else:
                names, start, line = tuple(first.values()), lines.at, lines.line + 1
        columns = Columns.among(names, given, place)
        return cls(place=place, names=names, columns=columns, start=start, line=line)

    def blocks(self) -> Iterator[tuple[Block, list[Record]]]:
        """Yield every block of the list, and its records."""
        with _opened(self.place) as file:
            lines = _Lines(file, self.place, self.start, self.line)
            records = self._records(lines)
            while True:
                start, line = lines.at, lines.line
                some = [record for record, _ in zip(records, range(CHUNK_LINES), strict=False)]
                if not some:
                    return
                yield Block(start=start, line=line, records=len(some)), some

    def read(self, block: Block) -> list[Record]:
        """Return the records of a block."""
        with _opened(self.place) as file:
            records = self._records(_Lines(file, self.place, block.start, block.line))
            return [record for record, _ in zip(records, range(block.records), strict=False)]

    def _records(self, lines: _Lines) -> Iterator[Record]:
        rows = _rows(lines, self.place)
        while True:
            line = lines.line
            row = next(rows, None)
            if row is None:
                return
            yield self._record(row, line)

    def _record(self, row: Mapping[Any, Any], line: int) -> Record:
        names, columns = self.names, self.columns
        cells = row if self.place.endswith(".jsonl") else {n: row.get(i, "") for i, n in enumerate(names)}

        def cell(name: str) -> str:
            value = cells.get(name) if name else None
            return "" if value is None else str(value).strip()

        return Record(
            line=line,
            path=cell(columns.path),
            labels=_labels(cells.get(columns.label) if columns.label else None, columns.several),
            split=cell(columns.split),
            key=cell(columns.key),
            caption=cell(columns.caption) or None,
        )


def _labels(value: Any, several: bool) -> tuple[str, ...]:
    if isinstance(value, list):
        return tuple(str(one).strip() for one in value if str(one).strip())
    text = "" if value is None else str(value).strip()
    if several and SEVERAL in text:
        return tuple(one.strip() for one in text.split(SEVERAL) if one.strip())
    return (text,) if text else ()


def open_list(place: str, options: SourceOptions, split: str) -> dict[str, Source]:
    """Return the splits of a list: those that its lines name, or all of it as ``split``.

    Raises
    ------
    UserError
        If the list cannot be read, has not the columns, or names a split that is none.
    """
    file = ListFile.open(place, options.columns)
    blocks: list[Block] = []
    classes: dict[str, set[str]] = {}
    several: set[str] = set()
    for block, records in file.blocks():
        blocks.append(block)
        for record in records:
            own = _split_of(record, file, split)
            labels = _class_names(record, options, file)
            classes.setdefault(own, set()).update(labels)
            if len(labels) > 1:
                several.add(own)
    # Lines of a labelled list that name neither split nor class are its pool.
    return {
        name: FileListSource(
            name,
            file,
            tuple(blocks),
            options,
            given=split,
            classes=() if name == "pool" else tuple(sorted(own)),
            multi_label=name in several or (file.columns.several and name != "pool"),
        )
        for name, own in classes.items()
    }


def _split_of(record: Record, file: ListFile, given: str) -> str:
    if given or not record.split:
        # Without a class it is of no use but in a pool.
        return given or ("" if record.labels else "pool")
    try:
        return split_name(record.split)
    except UserError as error:
        raise UserError(f"{file.place}, line {record.line}: {error.problem}", fix=error.fix) from error


def _class_names(record: Record, options: SourceOptions, file: ListFile) -> tuple[str, ...]:
    return tuple(class_name(one, options.names, f"{file.place}, line {record.line}") for one in record.labels)


class FileListSource(ListedChunks):
    """The pictures that a list names, of one split; a chunk is a block of the list."""

    def __init__(
        self,
        split: str,
        file: ListFile,
        blocks: tuple[Block, ...],
        options: SourceOptions,
        *,
        given: str,
        classes: tuple[str, ...],
        multi_label: bool,
    ) -> None:
        super().__init__()
        self.split, self.classes, self.multi_label = split, classes, multi_label
        # The split of the lines: another name may be given to it later.
        self._own, self._given = split, given
        self.file, self._options = file, options
        self._blocks = {f"{number:06d}": block for number, block in enumerate(blocks)}

    def chunks(self) -> Sequence[Chunk]:
        """Return the blocks; lines, and the size and time of every file here, are in their identity."""
        return [Chunk(id=id, identity=_identity(self._listed(id))) for id in self._blocks]

    def listing(self, chunk: str) -> ChunkListing:
        """List a block; UserError where the list was cut meanwhile."""
        records = self.file.read(self._blocks[chunk])
        own = [one for one in records if _split_of(one, self.file, self._given) == self._own]
        samples: dict[str, PictureSample] = {}
        left_out: list[tuple[Reason, str]] = []
        for record, status in zip(own, _status(self.file.place, own), strict=True):
            sample = self._sample(record, status)
            if not record.path:
                left_out.append((Reason.NO_PICTURE, f"{self.file.place}, line {record.line}"))
            elif status is None:
                left_out.append((Reason.MISSING, sample.place))
            elif not sample.labels and self.split != "pool" and not self.multi_label:
                left_out.append((Reason.NO_LABEL, sample.place))
            elif not _is_inner(sample.key):
                left_out.append((Reason.NAME, sample.key))
            elif sample.key in samples:
                left_out.append((Reason.DUPLICATE, sample.key))
            else:
                samples[sample.key] = sample
        return ChunkListing(samples=tuple(samples.values()), account=Account.of(left_out))

    def _sample(self, record: Record, status: tuple[int, int] | None) -> PictureSample:
        size, mtime_ns = status or (0, 0)
        return PictureSample(
            key=record.key or os.path.normpath(record.path) if not is_remote(record.path) else record.path,
            place=beside(self.file.place, record.path),
            labels=() if self.split == "pool" else _class_names(record, self._options, self.file),
            caption=record.caption,
            file_bytes=size,
            mtime_ns=mtime_ns,
            decoding=self._options.decoding,
        )


def _is_inner(key: str) -> bool:
    try:
        check_inner("a picture", [key])
    except ValueError:
        return False
    return True


def _status(place: str, records: Sequence[Record]) -> list[tuple[int, int] | None]:
    """Return bytes and time of each record's file; None of one that is not here, zeros of an address."""

    def look(some: Sequence[Record]) -> list[tuple[int, int] | None]:
        return [_status_of(beside(place, one.path)) for one in some]

    blocks = [records[start : start + FILES_AT_ONCE] for start in range(0, len(records), FILES_AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        return [one for block in pool.map(look, blocks) for one in block]


def _status_of(place: str) -> tuple[int, int] | None:
    if is_remote(place):
        return 0, 0
    try:
        return status_of(place)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _identity(listing: ChunkListing) -> str:
    table = [(s.key, s.place, s.labels, s.caption, s.file_bytes, s.mtime_ns) for s in listing.samples]
    return sha256(repr(table).encode("utf-8", "surrogateescape")).hexdigest()


class _Lines:
    """The lines of a file as texts, and the byte and the number of the line that comes next."""

    def __init__(self, file: BinaryIO, place: str, at: int = 0, line: int = 1) -> None:
        file.seek(at)
        self._file, self._place, self.at, self.line = file, place, at, line

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        raw = self._file.readline()
        if not raw:
            raise StopIteration
        try:
            text = raw.decode("utf-8-sig" if self.at == 0 else "utf-8")
        except UnicodeDecodeError as error:
            raise UserError(
                f"{self._place}, line {self.line} is not UTF-8 ({error.reason})", fix="save it as UTF-8."
            ) from error
        self.at += len(raw)
        self.line += 1
        return text


def _rows(lines: _Lines, place: str) -> Iterator[Mapping[Any, Any]]:
    """Yield the rows of a list: cells by name of a ``.jsonl``, else by number."""
    if place.endswith(".jsonl"):
        yield from _objects(lines, place)
        return
    try:
        for row in csv.reader(lines, delimiter="\t" if place.endswith(".tsv") else ",", strict=True):
            if row:
                yield dict(enumerate(row))
    except csv.Error as error:
        raise UserError(f"{place}, line {lines.line - 1}: {error}", fix="mend that line.") from error


def _objects(lines: _Lines, place: str) -> Iterator[Mapping[Any, Any]]:
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
    except FileNotFoundError as error:
        raise UserError(f"{place} does not exist", fix="check the path.") from error
    except OSError as error:
        raise UserError(f"{place} cannot be read ({error.strerror or error})", fix="check it.") from error
