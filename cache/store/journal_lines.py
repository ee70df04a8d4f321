"""The lines of a cache's journal: what each says, and how it is written and read, with suspicion.

A line is JSON and carries its own checksum: one that a kill has cut short, which is the last of its file, is
nobody's; any other that differs is damage.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cache.runtime.errors import reason_of
from cache.runtime.json_values import value_of
from cache.runtime.system_errors import read_error
from cache.sources.names import check_inner
from cache.sources.splits import SPLITS
from cache.store.digests import Digests
from cache.store.manifest_lines import ListedFile

# Where the line of a column remembers the digest of its values, and of what keys they are.
DIGEST, VALUES = "digest", "values"
ROWS, TARS = "rows", "tars"
KEYS, SAMPLES = "keys", "samples"
IMAGES, CAPTIONS = "image_embedding", "caption_embedding"
_GROUP = re.compile(rf"({'|'.join(SPLITS)})-(\d{{5,9}})")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,210}"
_FILE = re.compile(
    rf"(?:{ROWS}/(?P<group>[a-z_]+-\d+)/(?P<column>{_NAME})\.h5|{TARS}/(?P<tar>[a-z_]+-\d+)\.tar)"
)


def split_of(group: str) -> str:
    """Return the split of a row group by its name; ValueError where that is no row group's."""
    match = _GROUP.fullmatch(group)
    if match is None:
        raise ValueError(f"{group!r:.80} is no row group")
    return match[1]


def group_of(file: str) -> str:
    """Return the row group that a file below a cache is one of; ValueError where it is of none."""
    match = _FILE.fullmatch(file)
    if match is None:
        raise ValueError(f"{file!r:.80} is no file of a row group")
    group = match["group"] or match["tar"]
    split_of(group)
    return group


@dataclass(frozen=True, kw_only=True, slots=True)
class FileLine(ListedFile):
    """One finished file of a row group; ValueError where it is none of a cache.

    ``made_from`` is a digest of what the file was made from, ``about`` what should be remembered of that.
    """

    FORM = _FILE
    rows: int
    made_from: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # Not super(), which a dataclass with slots leaves behind.
        ListedFile.__post_init__(self)
        split_of(self.group)
        if self.column == KEYS:
            digests_in(self.about.get("digests"))

    @property
    def group(self) -> str:
        """The row group."""
        return group_of(self.file)

    @property
    def column(self) -> str:
        """What the file holds: ``keys``, a column, or ``samples``, the tar of the group."""
        match = _FILE.fullmatch(self.file)
        assert match is not None
        return match["column"] or SAMPLES

    @property
    def digests(self) -> Digests:
        """Of the rows, where this is the file of their keys."""
        return digests_in(self.about.get("digests"))


@dataclass(frozen=True, kw_only=True, slots=True)
class SkippedImage:
    """An image of a split that could not be decoded, and what its file looked like then."""

    split: str
    key: str
    reason: str
    bytes: int
    mtime_ns: int

    def __post_init__(self) -> None:
        if self.split not in SPLITS:
            raise ValueError(f"{self.split!r:.80} is no split")
        check_inner("a skipped image", [self.key])


@dataclass(frozen=True, kw_only=True, slots=True)
class TriedImage:
    """An image that was skipped, and is not any more: it was read, or its file is gone."""

    split: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class RemovedRows:
    """Rows of a group that are seen no more: their images are gone, or others."""

    group: str
    rows: tuple[int, ...]
    digests: dict[str, str]

    def __post_init__(self) -> None:
        split_of(self.group)
        digests_in(self.digests)


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoredRows(RemovedRows):
    """Rows of a group that were removed, and are seen again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DroppedFile:
    """A file that is listed no more: it was damaged, or another stands for it. Of its keys: the group is."""

    file: str

    def __post_init__(self) -> None:
        group_of(self.file)


Line = FileLine | SkippedImage | TriedImage | RemovedRows | RestoredRows | DroppedFile
_LINES: dict[str, type[Any]] = {
    "file": FileLine,
    "skipped": SkippedImage,
    "tried": TriedImage,
    "removed": RemovedRows,
    "restored": RestoredRows,
    "dropped": DroppedFile,
}
_NAME_OF = {line: name for name, line in _LINES.items()}


def as_text(line: Line) -> str:
    """Return a line as it is written: JSON, with the CRC-32 of what is before it."""
    # Names of files may be no UTF-8: JSON writes what is not ASCII as numbers.
    text = json.dumps({"line": _NAME_OF[type(line)], **asdict(line)}, separators=(",", ":"))
    return f'{text[:-1]},"crc32":{zlib.crc32(text.encode())}}}\n'


def read_lines(path: Path) -> Iterator[tuple[int, Line | ValueError]]:
    """Yield the lines of a writer's file with their numbers, and of a damaged one what is wrong with it.

    A last line that was cut short is passed over: what it lists was never finished.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise read_error(path, error) or error from error
    lines = raw.split(b"\n")
    for number, text in enumerate(lines, start=1):
        line = _parsed(text)
        is_cut = number == len(lines) and isinstance(line, ValueError)
        if line is not None and not is_cut:
            yield number, line


_END = re.compile(rb',"crc32":(\d{1,10})\}\Z')


def _parsed(text: bytes) -> Line | ValueError | None:
    end = _END.search(text)
    if end is None:
        # A line that was cut short, after which another writer of that name went on.
        return None if _is_cut(text) else ValueError("it has no checksum")
    head = text[: end.start()] + b"}"
    if zlib.crc32(head) != int(end[1]):
        return ValueError("it differs from its checksum")
    try:
        table = json.loads(head)
        line_type = _LINES.get(table.pop("line", None))
        if line_type is None:
            raise ValueError("it is of no kind of ours")
        line: Line = value_of(line_type, table, name="it")
    except (ValueError, RecursionError, AttributeError, TypeError) as error:
        return ValueError(reason_of(error))
    return line


def _is_cut(text: bytes) -> bool:
    return not text or (text.startswith(b'{"line":'[: len(text)]) and not text.endswith(b"}"))


def digests_in(table: Any) -> Digests:
    """Return the digests that a line tells; ValueError where it tells none."""
    return value_of(Digests, table, name="digests")
