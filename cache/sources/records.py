"""What a list or a table says of its pictures, line by line, and the sources that are made of it.

A list is looked through once when it is opened: which splits it has, with which classes, and in which of its
chunks each is. After that a process reads a chunk when it lists it.
"""

from __future__ import annotations

import math
import posixpath
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError
from cache.sources.accounts import NOTHING, Account, Reason
from cache.sources.chunk_looks import ChunkListing
from cache.sources.class_numbers import class_name
from cache.sources.key_hashes import hash_of_key, hashes_of
from cache.sources.listed_chunks import ListedChunks
from cache.sources.names import check_inner
from cache.sources.pictures import PictureSample
from cache.sources.places import is_remote
from cache.sources.source_options import SourceOptions
from cache.sources.splits import split_called, split_name

# Between several classes in one cell of a column that is called labels.
SEVERAL = ";"
# Of a class that is given as a number: there is none, as Hugging Face writes it.
NO_NUMBER = "-1"
# What a part of a path that leads up is called in a key.
UP = "_up_"


Labels = tuple[str, ...]


class Record(NamedTuple):
    """What a line or row says of its picture. A tuple, because a million of them are made in a row.

    ``number`` is that of its line or row. ``labels`` are class names, or numbers of given names; what is not
    said is '', or None.
    """

    number: int
    path: str
    labels: Labels = ()
    split: str = ""
    key: str = ""
    caption: str | None = None


class Row(NamedTuple):
    """A record as a row of its split: what its sample is to be called, and its classes."""

    record: Record
    key: str
    labels: Labels
    caption: str | None


def text_of_cell(value: Any) -> str:
    """Return what a cell says as a text, '' where it is empty; ValueError for a list or an object."""
    if isinstance(value, str):
        return value.strip()
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool | int | float):
        return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "surrogateescape").strip()
    raise ValueError(f"{value!r:.60} is neither a text nor a number")


def caption_of_cell(value: Any) -> str:
    """Return the text of a cell, of a list its first."""
    return text_of_cell(value[0] if isinstance(value, list) and value else value or "")


def labels_of_cell(value: Any, several: bool) -> Labels:
    """Return the labels of a cell, each once: of a list, or with ``several`` of a text with semicolons."""
    if isinstance(value, list | tuple):
        texts = [text_of_cell(one) for one in value]
    else:
        text = text_of_cell(value)
        texts = [one.strip() for one in text.split(SEVERAL)] if several and SEVERAL in text else [text]
    return tuple(dict.fromkeys(one for one in texts if one))


def split_of_name(name: str) -> str:
    """Return our name of a split as lists call it, ``val`` for a test of either kind; else UserError."""
    return split_called(name) or split_name(name)


def folder_of(place: str) -> str:
    """Return the folder of a file or address; '' for the working folder."""
    return posixpath.dirname(place)


def key_of_path(path: str, folder: str) -> str:
    """Return the key of a picture by its path as a list in ``folder`` writes it.

    That is the path below the folder; of one that lies elsewhere ``..`` is written ``_up_``, of an absolute
    one the first slash is left out, and of an address what stands before its server.
    """
    if is_remote(path):
        path = path.partition("://")[2]
        inner = not is_remote(folder) or not path.startswith(f"{folder.partition('://')[2]}/")
        path = path if inner else path[len(folder.partition("://")[2]) :]
    elif path.startswith("/") and folder and path.startswith(f"{posixpath.abspath(folder)}/"):
        path = path[len(posixpath.abspath(folder)) :]
    # Most need none of this, and there may be millions.
    if path.startswith(("/", ".")) or "/." in path or "//" in path:
        path = posixpath.normpath(path).lstrip("/")
        if path.startswith(".."):
            path = "/".join(UP if part == ".." else part for part in path.split("/"))
    return path


@dataclass(kw_only=True)
class SplitSurvey:
    """What is in one split of a list: how many rows each chunk has, by id, its classes, and keys met twice.

    ``repeated`` are hashes of keys that several chunks have, and the chunk that has each first.
    """

    chunks: dict[str, int] = field(default_factory=dict)
    classes: set[str] = field(default_factory=set)
    multi_label: bool = False
    repeated: dict[int, str] = field(default_factory=dict)
    _hashes: list[NDArray[np.uint64]] = field(default_factory=list)

    def add(self, chunk: str, keys: Sequence[str], labels: set[Labels]) -> None:
        """Add what a chunk has of the split."""
        self.chunks[chunk] = len(keys)
        self._hashes.append(np.unique(hashes_of(keys)))
        self.classes.update(name for own in labels for name in own)
        self.multi_label |= any(len(own) > 1 for own in labels)

    def finish(self) -> None:
        """Find the keys that several chunks have; nothing of each key is kept."""
        hashes = np.concatenate(self._hashes)
        chunk = np.repeat(np.arange(len(self._hashes)), [len(own) for own in self._hashes])
        order = np.argsort(hashes, kind="stable")
        hashes, ids = hashes[order], [*self.chunks]
        twice = np.flatnonzero(hashes[1:] == hashes[:-1])
        for at in twice[::-1].tolist():  # so that of three the first is written last
            self.repeated[int(hashes[at])] = ids[int(chunk[order[at]])]
        self._hashes = []


@dataclass(frozen=True, kw_only=True)
class RecordReader:
    """How the records of one list or table are understood.

    ``place`` and ``unit`` ("line", "row") are for messages; ``folder`` is what paths are relative to;
    ``given`` is the split that all of it is, and ``fallback`` the one of what says none itself.
    """

    place: str
    unit: str
    folder: str
    options: SourceOptions
    names: tuple[str, ...] = ()
    given: str = ""
    fallback: str = ""

    def where(self, record: Record) -> str:
        """Return where a record stands, for messages."""
        return f"{self.place}, {self.unit} {record.number}"

    def labels(self, record: Record, memo: dict[Labels, Labels]) -> Labels:
        """Return the names of a record's classes; ``memo`` keeps those that were looked at."""
        if record.labels not in memo:
            memo[record.labels] = tuple(
                class_name(one, self.names, self.where(record))
                for one in record.labels
                if not (self.names and one == NO_NUMBER)
            )
        return memo[record.labels]

    def split(self, record: Record, labels: Labels) -> str:
        """Return the split of a record, '' of one with labels that does not say; UserError if it is none."""
        if self.given:
            return self.given
        if not record.split:
            # Without a class it is of no use but in a pool.
            return self.fallback or ("" if labels else "pool")
        try:
            return split_of_name(record.split)
        except UserError as error:
            raise UserError(f"{self.where(record)}: {error.problem}", fix=error.fix) from error

    def key(self, record: Record) -> str:
        """Return the key that a record says, else that of its path; '' where no file can be called so."""
        key = record.key or key_of_path(record.path, self.folder)
        return key if key.isascii() or _is_encodable(key) else ""

    def survey(self, chunks: Iterable[tuple[str, Sequence[Record]]]) -> dict[str, SplitSurvey]:
        """Look through all records, chunk by chunk; return what each split has."""
        surveys: dict[str, SplitSurvey] = {}
        memo: dict[Labels, Labels] = {}
        for chunk, records in chunks:
            own: dict[str, tuple[list[str], set[Labels]]] = {}
            for record in records:
                labels = self.labels(record, memo)
                keys, met = own.setdefault(self.split(record, labels), ([], set()))
                keys.append(self.key(record))
                met.add(labels)
            for split, (keys, met) in own.items():
                surveys.setdefault(split, SplitSurvey()).add(chunk, keys, met)
        for survey in surveys.values():
            survey.finish()
        return surveys


class RecordSource(ListedChunks):
    """The pictures of one split of a list or table."""

    def __init__(self, split: str, reader: RecordReader, survey: SplitSurvey) -> None:
        super().__init__()
        self.split, self.reader, self._survey = split, reader, survey
        # The split of the records: another name may be given to it later.
        self._own = split
        self.classes = () if split == "pool" else tuple(sorted(survey.classes))
        self.multi_label = survey.multi_label and split != "pool"
        # Of chunks that were listed in this process, for an account that lists none again.
        self._accounts: dict[str, Account] = {}

    @property
    def chunk_ids(self) -> Sequence[str]:
        """The ids of the chunks that have any record of the split."""
        return [*self._survey.chunks]

    def account(self) -> Account:
        """Return what is left out of all chunks."""
        accounts = (self._accounts.get(id) or self._listed(id).account for id in self.chunk_ids)
        return sum(accounts, Account())

    @abstractmethod
    def records(self, chunk: str) -> Sequence[Record]:
        """Return all records of a chunk, those of other splits too."""

    @abstractmethod
    def pictures(self, chunk: str, rows: Sequence[Row]) -> Sequence[PictureSample | Reason]:
        """Return the picture of each row, or why there is none."""

    def listing(self, chunk: str) -> ChunkListing:
        """List a chunk; UserError where the list was changed meanwhile so that it cannot be read."""
        rows = self._rows(chunk)
        samples: dict[str, PictureSample] = {}
        left_out: list[tuple[Reason, str]] = []
        for row, picture in zip(rows, self.pictures(chunk, rows), strict=True):
            reason = picture if isinstance(picture, Reason) else self._reason(chunk, row)
            if isinstance(picture, Reason) or reason is not None or row.key in samples:
                name = row.record.path or row.record.key or self.reader.where(row.record)
                left_out.append((reason or Reason.DUPLICATE, name))
            else:
                samples[row.key] = picture
        self._accounts[chunk] = Account.of(left_out) if left_out else NOTHING
        return ChunkListing(samples=tuple(samples.values()), account=self._accounts[chunk])

    def _rows(self, chunk: str) -> list[Row]:
        """Return the rows of the split in a chunk."""
        reader, memo, pool = self.reader, dict[Labels, Labels](), self.split == "pool"
        rows = []
        for record in self.records(chunk):
            labels = reader.labels(record, memo)
            if reader.split(record, labels) == self._own:
                caption = _storable(record.caption) if record.caption else None
                rows.append(Row(record, reader.key(record), () if pool else labels, caption))
        return rows

    def _reason(self, chunk: str, row: Row) -> Reason | None:
        """Return why the picture of a row is left out, whatever it is; None where it is not."""
        if not row.labels and self.split != "pool" and not self.multi_label:
            return Reason.NO_LABEL
        if not is_key(row.key):
            return Reason.NAME
        if self._survey.repeated and self._survey.repeated.get(hash_of_key(row.key), chunk) != chunk:
            return Reason.DUPLICATE
        return None


def _storable(caption: str) -> str:
    if not caption.isascii():
        caption = caption.encode("utf-8", "replace").decode()
    return caption.replace("\0", " ")


def _is_encodable(key: str) -> bool:
    try:
        key.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:  # half a character, as JSON can write it
        return False
    return True


def is_key(key: str) -> bool:
    """Say whether a text can be a key: it leads out of no folder, and a file can be called so."""
    try:
        check_inner("a picture", [key])
    except ValueError:
        return False
    return _is_encodable(key)
