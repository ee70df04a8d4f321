"""What is in a cache, line by line: ``journal/WRITER.jsonl``. A file that no line lists does not exist.

Every writer (a rank, a task) appends to a file of its own, a line when a file is finished; the lines of all
are folded into a :class:`Journal`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import UserError, reason_of
from cache.runtime.locks import check_held
from cache.runtime.system_errors import write_error
from cache.sources.names import is_plain_name
from cache.sources.splits import SPLITS
from cache.store.digests import NONE, Digests, is_digest
from cache.store.journal_lines import (
    DIGEST,
    KEYS,
    SAMPLES,
    VALUES,
    DroppedFile,
    FileLine,
    Line,
    RemovedRows,
    RestoredRows,
    SkippedImage,
    TriedImage,
    as_text,
    digests_in,
    read_lines,
    split_of,
)
from cache.store.read_errors import REPAIR

FOLDER, ENDING = "journal", ".jsonl"
MAIN = "main"


@dataclass(frozen=True, kw_only=True)
class RowGroup:
    """Rows that were written together, and never change; ``lines`` are its files by column.

    ``removed`` are the numbers of the rows that are not seen any more.
    """

    name: str
    lines: dict[str, FileLine]
    removed: frozenset[int] = frozenset()
    removed_digests: Digests = NONE

    @property
    def split(self) -> str:
        """The split of its rows."""
        return split_of(self.name)

    @property
    def columns(self) -> set[str]:
        """The columns that it has, in files of their own or in its tar."""
        in_tar = self.lines[SAMPLES].about.get("columns") if SAMPLES in self.lines else None
        return {*self.lines, *(filter(is_plain_name, in_tar) if isinstance(in_tar, list) else ())}

    @property
    def keys(self) -> FileLine:
        """The file of its keys."""
        return self.lines[KEYS]

    @property
    def rows(self) -> int:
        """How many rows it has, removed ones among them."""
        return self.keys.rows

    @property
    def live(self) -> int:
        """How many rows it has that were not removed."""
        return self.rows - len(self.removed)

    @property
    def live_rows(self) -> NDArray[np.int64]:
        """The numbers of the rows that were not removed, int64, rising."""
        seen = np.ones(self.rows, dtype=bool)
        seen[list(self.removed)] = False
        return np.flatnonzero(seen)

    @property
    def digests(self) -> Digests:
        """Of the rows that were not removed."""
        return self.keys.digests - self.removed_digests

    def digest_of(self, column: str) -> str:
        """Return the digest of a column's values of all rows, '' where its line does not tell it.

        See :func:`cache.store.digests.digest_of_values`. One that was remembered of other rows is none.
        """
        line = self.lines.get(column)
        told = line.about.get(DIGEST) if line is not None else None
        if not isinstance(told, dict) or told.get(KEYS) != self.keys.digests.keys:
            return ""
        values = told.get(VALUES)
        return values if isinstance(values, str) and is_digest(values) else ""


@dataclass(kw_only=True)
class Journal:
    """What the lines of a cache's writers say together."""

    files: dict[str, FileLine] = field(default_factory=dict)
    skipped: dict[str, dict[str, SkippedImage]] = field(default_factory=dict)
    removed: dict[str, frozenset[int]] = field(default_factory=dict)
    removed_digests: dict[str, Digests] = field(default_factory=dict)

    @classmethod
    def load(cls, cache: Path) -> Journal:
        """Fold the lines of all writers of a cache, the main one's first.

        Raises
        ------
        UserError
            If a line is damaged; the message names it.
        """
        journal = cls()
        for path in writers(cache):
            for number, line in read_lines(path):
                if isinstance(line, ValueError):
                    raise UserError(f"line {number} of {path} is damaged ({reason_of(line)})", fix=REPAIR)
                journal.add(line)
        return journal

    def add(self, line: Line) -> None:
        """Fold in one more line."""
        match line:
            case FileLine():
                self.files[line.file] = line
            case SkippedImage():
                self.skipped.setdefault(line.split, {})[line.key] = line
            case TriedImage():
                self.skipped.get(line.split, {}).pop(line.key, None)
            case DroppedFile():
                self._drop(line.file)
            case RestoredRows():
                self._change(line, self._removed(line) - set(line.rows), -1)
            case RemovedRows():
                self._change(line, self._removed(line) | set(line.rows), 1)
        vars(self).pop("_groups", None)

    def _drop(self, file: str) -> None:
        dropped = self.files.pop(file, None)
        if dropped is None or dropped.column != KEYS:
            return
        group = dropped.group
        for one in [one for one in self.files.values() if one.group == group]:
            del self.files[one.file]
        self.removed.pop(group, None)
        self.removed_digests.pop(group, None)

    def _removed(self, line: RemovedRows) -> frozenset[int]:
        return self.removed.get(line.group, frozenset())

    def _change(self, line: RemovedRows, removed: frozenset[int], sign: int) -> None:
        if removed == self._removed(line):
            return  # the same line again, of a writer that was killed between two
        before = self.removed_digests.get(line.group, NONE)
        own = digests_in(line.digests)
        self.removed[line.group] = removed
        self.removed_digests[line.group] = before + own if sign > 0 else before - own

    @cached_property
    def _groups(self) -> dict[str, tuple[RowGroup, ...]]:
        lines: dict[str, dict[str, FileLine]] = {}
        for line in self.files.values():
            lines.setdefault(line.group, {})[line.column] = line
        groups: dict[str, list[RowGroup]] = {}
        for name in sorted(lines, key=lambda one: (split_of(one), int(one.rpartition("-")[2]))):
            if KEYS in lines[name]:  # without them its files are nobody's
                group = RowGroup(
                    name=name,
                    lines=lines[name],
                    removed=self.removed.get(name, frozenset()),
                    removed_digests=self.removed_digests.get(name, NONE),
                )
                if group.removed and not 0 <= min(group.removed) <= max(group.removed) < group.rows:
                    raise UserError(f"the journal removes rows that {name} has not", fix=REPAIR)
                groups.setdefault(group.split, []).append(group)
        return {split: tuple(groups[split]) for split in SPLITS if split in groups}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have row groups."""
        return tuple(self._groups)

    def check_lists(self, cache: Path, rows: Mapping[str, int]) -> None:
        """Raise a UserError if fewer rows are listed than a cache has by its manifest, ``rows`` by split.

        A journal that was removed, or lost lines, looks like that of a smaller cache: whoever went on with
        it would remove the others as files that nobody lists.
        """
        lost = [f"{self.rows(split):,} of {n:,} {split}" for split, n in rows.items() if self.rows(split) < n]
        if lost:
            raise UserError(
                f"{cache / FOLDER} lost lines: it lists {', '.join(lost)} rows",
                fix=f"bring it back from a copy, or run 'distill cache repair {cache}', which gives the "
                "others up.",
            )

    def groups(self, split: str) -> tuple[RowGroup, ...]:
        """Return the row groups of a split, by number."""
        return self._groups.get(split, ())

    def live_groups(self, split: str) -> tuple[RowGroup, ...]:
        """Return the row groups of a split that have rows that are seen.

        Those of others may lack what was made since, and are not looked at: their rows may be wanted again.
        """
        return tuple(group for group in self.groups(split) if group.live)

    @property
    def all_groups(self) -> tuple[RowGroup, ...]:
        """The row groups of all splits."""
        return tuple(group for groups in self._groups.values() for group in groups)

    @property
    def rows_of_splits(self) -> dict[str, int]:
        """How many rows of each split are seen."""
        return {split: self.rows(split) for split in self.splits}

    def rows(self, split: str) -> int:
        """Return how many rows of a split are seen."""
        return sum(group.live for group in self.groups(split))

    def digests(self, split: str) -> Digests:
        """Return what names the rows of a split that are seen."""
        return sum((group.digests for group in self.groups(split)), NONE)

    def lines(self) -> Iterator[Line]:
        """Yield the fewest lines that say the same."""
        for group in self.all_groups:
            yield from (line for column, line in group.lines.items() if column != KEYS)
            yield group.keys
            if group.removed:
                yield RemovedRows(
                    group=group.name,
                    rows=tuple(sorted(group.removed)),
                    digests=asdict(group.removed_digests),
                )
        for images in self.skipped.values():
            yield from images.values()


class JournalWriter:
    """Appends the lines of one writer of a cache."""

    def __init__(self, cache: Path, writer: str = MAIN) -> None:
        """Of a writer of that name; its file is made with the first line."""
        self.path = cache / FOLDER / f"{writer}{ENDING}"

    def add(self, *lines: Line) -> None:
        """Append some lines at once, and wait until they are on the disk.

        Raises
        ------
        UserError
            If they cannot be written.
        """
        if not lines:
            return
        check_held(self.path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "ab") as file:
                # What a kill has cut short ends here, so that it spoils no line of ours.
                start = b"\n" if file.tell() and not _ends_whole(self.path) else b""
                file.write(start + "".join(map(as_text, lines)).encode("utf-8", "surrogatepass"))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            refused = write_error(self.path, error)
            raise refused or error from error


def writer_of_rank(rank: int) -> str:
    """Return what a rank's file is called."""
    return f"rank-{rank:05d}" if rank else MAIN


def writers(cache: Path) -> list[Path]:
    """Return the files of a cache's writers, the main one's first: what it says the others build on."""
    files = sorted((cache / FOLDER).glob(f"*{ENDING}"))
    return sorted(files, key=lambda path: path.stem != MAIN)


def consolidate(cache: Path, journal: Journal) -> None:
    """Make one file of a journal's, with the lines that still hold. Only under the lock of the cache."""
    main = cache / FOLDER / f"{MAIN}{ENDING}"
    if not journal.files and not journal.skipped and not main.parent.exists():
        return
    with replacing(main) as temporary:
        temporary.write_bytes("".join(map(as_text, journal.lines())).encode("utf-8", "surrogatepass"))
    for path in writers(cache):
        if path != main:
            path.unlink()


def _ends_whole(path: Path) -> bool:
    with open(path, "rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read() == b"\n"
