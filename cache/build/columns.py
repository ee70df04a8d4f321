"""Columns: something per image, added to the row groups that lack it by one loop, whoever runs it.

A column is a file on a row group, of one row an image. A group lacks it where no line of the journal lists
it, or where it was made by other settings, of other keys, or of less than what is seen now. The first process
plans what is missing; ranks of torchrun take every so many groups each, on a Ray cluster a group is a task.
Each file is written whole and then listed: what is listed when a run ends is kept.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from cache.runtime.distributed import Ranks
from cache.runtime.errors import CacheMismatch
from cache.runtime.progress import Progress, Silent
from cache.sources.samples import Sample, Source
from cache.sources.splits import MAIN_TEACHER, SPLITS
from cache.store.column_lines import LEFT_OUT, OF, column_name, is_current, made_from
from cache.store.hdf5_columns import Column as Values
from cache.store.journal import Journal, JournalWriter, RowGroup, writer_of_rank
from cache.store.journal_lines import IMAGES, DroppedFile, FileLine
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ColumnSettings
from cache.store.row_group import GroupKeys, read_keys, write_column
from cache.store.webdataset import rows_of_group

if TYPE_CHECKING:
    from cache.teacher.teacher import Teacher


@dataclass(frozen=True, kw_only=True)
class Tools:
    """What a process makes columns with.

    ``dtype`` is the cache's; ``workers`` decode; ``made_with`` is what a line says of the machine.
    """

    teacher: Teacher | None = None
    dtype: str = "float32"
    batch_size: int = 32
    workers: int = 0
    progress: Progress = field(default_factory=Silent)
    made_with: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """What a group's column is to hold.

    ``of`` names what it is made from beside settings and keys; ``rows`` are the rows that it has, None for
    all that are seen.
    """

    of: str = ""
    rows: tuple[int, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class GroupRows:
    """The rows of a group that a column is made of: ``at`` int64 [m], rising, of all n of the group."""

    cache: Path
    group: RowGroup
    at: NDArray[np.int64]
    source: Source | None = None

    @cached_property
    def keys(self) -> GroupKeys:
        """What these rows are of, [m]."""
        return read_keys(self.cache, self.group.keys).taken(self.at)

    @cached_property
    def samples(self) -> Sequence[Sample]:
        """The images of these rows, [m], in their order; CacheMismatch if the data have none of that key."""
        assert self.source is not None
        try:
            return tuple(self.source.samples(self.keys.keys))
        except KeyError as error:
            raise CacheMismatch(
                f"the data have no image {error.args[0]!r:.120} of {self.group.split}, of which {self.cache} "
                "has a row",
                fix="give the data the cache was made from, or bring it up to date: the same cache-features "
                "command without --teacher.",
            ) from error

    def embeddings(self, teacher: str) -> NDArray[Any]:
        """Return the rows [m, D] that a teacher gave these images; UserError where they are damaged."""
        rows = rows_of_group(self.cache, self.group, column_name(IMAGES, teacher))
        taken: NDArray[Any] = rows[self.at]
        return taken

    def __len__(self) -> int:
        return len(self.at)

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values [m, ...] of these rows as [n, ...] of the group, zeros for the others."""
        if len(self.at) == self.group.rows:
            return values
        whole = np.zeros((self.group.rows, *values.shape[1:]), dtype=values.dtype)
        whole[self.at] = values
        return whole


# The datasets of a group's file, [n, ...] each, and what its line says about it.
Made = tuple[dict[str, Values], dict[str, Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherSettings:
    """Rows are those of the ``teacher`` of that fingerprint."""

    teacher: str


@dataclass(frozen=True, kw_only=True)
class Column(ABC):
    """Something per image: a ``BASE`` of a ``teacher``, of the images of some ``SPLITS``.

    A frozen value, and picklable: another machine makes it as this one. ``of`` are the settings that make it,
    a dataclass.
    """

    BASE: ClassVar[str]
    SPLITS: ClassVar[tuple[str, ...]] = SPLITS
    of: Any
    teacher: str = MAIN_TEACHER

    @property
    def name(self) -> str:
        """What its files and its settings are called: of an added teacher with its name."""
        return column_name(self.BASE, self.teacher)

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that have it."""
        return self.SPLITS

    @property
    def settings(self) -> dict[str, Any]:
        """What makes it, beside the images."""
        return asdict(self.of)

    def wanted(self, cache: Path, groups: Sequence[RowGroup]) -> Sequence[Wanted | None]:
        """Return what each of a split's groups is to have; None for one that is to have nothing."""
        return [Wanted() for _ in groups]

    def only(self, group: GroupRows) -> Column:
        """Return what makes this group's rows: it is sent to another machine."""
        return self

    @abstractmethod
    def rows(self, group: GroupRows, tools: Tools) -> Made:
        """Make a group's rows; UserError where an image cannot be read any more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupPlan:
    """A row group, and of each column that it lacks what is wanted."""

    group: RowGroup
    wanted: dict[str, Wanted]


@dataclass(frozen=True, kw_only=True)
class ColumnsJob:
    """Columns to be added to a cache: of the images of ``sources``, by split."""

    out: Path
    sources: Mapping[str, Source]
    columns: Sequence[Column]
    tools: Tools
    ranks: Ranks = field(default_factory=Ranks)

    def lacked(self, plan: GroupPlan) -> list[Column]:
        """Return the columns that a group lacks."""
        return [column for column in self.columns if column.name in plan.wanted]

    def rows(self, group: RowGroup, wanted: Wanted) -> GroupRows:
        """Return the rows of a group that a column is made of."""
        at = group.live_rows if wanted.rows is None else np.array(wanted.rows, dtype=np.int64)
        return GroupRows(cache=self.out, group=group, at=at, source=self.sources.get(group.split))


# Makes the columns of planned groups, and lists each file in the journal once it is there.
MakeColumns = Callable[[ColumnsJob, Sequence[GroupPlan]], None]


def make_here(job: ColumnsJob, plans: Sequence[GroupPlan], *, writer: str = "") -> None:
    """Make this rank's share of the columns, group after group; ``writer`` lists them, or else the rank."""
    ranks, progress = job.ranks, job.tools.progress
    mine = plans[ranks.rank :: ranks.world]
    progress.start(sum(map(rows_of, mine)), in_words(mine), "rows")
    journal = JournalWriter(job.out, writer or writer_of_rank(ranks.rank))
    for plan in mine:
        for line in _make_group(job, plan):
            journal.add(line)


def rows_of(plan: GroupPlan) -> int:
    """Return how many rows a group's columns have together."""
    return sum(plan.group.live if w.rows is None else len(w.rows) for w in plan.wanted.values())


def in_words(plans: Sequence[GroupPlan]) -> str:
    """Return which columns are added: no image is embedded anew for some of them."""
    return f"adding {', '.join(sorted({name for plan in plans for name in plan.wanted}))}"


def add_columns(
    job: ColumnsJob, manifest: Manifest, make: MakeColumns = make_here
) -> tuple[Manifest, dict[str, int]]:
    """Add columns to the row groups that lack them; return the manifest that names them, and how many rows.

    Those are by column, and of all ranks; a column that no group lacked is not among them. Every rank calls
    it; the first holds the cache's lock. Returns when all of them are done.

    Raises
    ------
    UserError
        If an image that has a row cannot be read any more, or a file cannot be written.
    """
    ranks = job.ranks
    manifest, plans = ranks.from_first(partial(plan_columns, job, manifest))
    if plans:
        make(job, plans)
    ranks.wait()
    added: Counter[str] = Counter()
    for plan in plans:
        added.update({name: rows_of(replace(plan, wanted={name: own})) for name, own in plan.wanted.items()})
    return manifest, dict(added)


def plan_columns(job: ColumnsJob, manifest: Manifest) -> tuple[Manifest, list[GroupPlan]]:
    """Return the manifest with the columns' settings, saved, and what each group lacks of them."""
    journal = Journal.load(job.out)
    lacking: dict[str, dict[str, Wanted]] = {}
    dropped: list[FileLine] = []
    named = dict(manifest.columns)
    for column in job.columns:
        splits = []
        for split in column.splits:
            groups = journal.groups(split)
            wanted_of = list(zip(groups, column.wanted(job.out, groups), strict=True))
            if any(wanted for _, wanted in wanted_of):
                splits.append(split)
            for group, wanted in wanted_of:
                if wanted is None:
                    dropped += _stale(group, column)
                elif not _has(job.out, group, column, wanted):
                    lacking.setdefault(group.name, {})[column.name] = wanted
        named[column.name] = ColumnSettings(splits=tuple(splits), settings=column.settings)
    if named != manifest.columns:
        manifest = replace(manifest, columns=named)
        manifest.save(job.out)
    drop_files(job.out, dropped)
    return manifest, [
        GroupPlan(group=group, wanted=lacking[group.name])
        for group in journal.all_groups
        if group.name in lacking
    ]


def _has(cache: Path, group: RowGroup, column: Column, wanted: Wanted) -> bool:
    """Say whether a group has what is wanted, in a file as long as it was."""
    is_made = is_current(group, column.name, column.settings, of=wanted.of)
    return is_made and group.lines[column.name].is_there(cache)


def _stale(group: RowGroup, column: Column) -> list[FileLine]:
    """Return the file of a group that is to have none, where it was made otherwise."""
    line = group.lines.get(column.name)
    return [] if line is None or is_current(group, column.name, column.settings) else [line]


def drop_files(cache: Path, lines: Sequence[FileLine]) -> None:
    """Remove files of columns; UserError where that cannot be written."""
    # No line first: a listed file that is not there would be damage.
    JournalWriter(cache).add(*(DroppedFile(file=line.file) for line in lines))
    for line in lines:
        (cache / line.file).unlink(missing_ok=True)


def _make_group(job: ColumnsJob, plan: GroupPlan) -> Iterator[FileLine]:
    """Make the columns that a group lacks, and yield the line of each when its file is there."""
    group = plan.group
    for column in job.lacked(plan):
        wanted = plan.wanted[column.name]
        datasets, about = column.rows(job.rows(group, wanted), job.tools)
        left_out = sorted(group.removed) if wanted.rows is None else []
        remembered = {OF: wanted.of, LEFT_OUT: left_out}
        line = write_column(
            job.out,
            group.name,
            column.name,
            datasets,
            rows=group.rows,
            made_from=made_from(column.settings, group.keys, wanted.of),
            about={**job.tools.made_with, **about, **{k: v for k, v in remembered.items() if v}},
        )
        # One column may be made from another.
        group = replace(group, lines={**group.lines, column.name: line})
        yield line
