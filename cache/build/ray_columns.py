"""Columns made as Ray tasks, a row group each, on machines that share the storage of images and cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cache.build.columns import (
    Column,
    ColumnsJob,
    GroupPlan,
    Tools,
    Wanted,
    group_rows,
    in_words,
    make_group,
    rows_of,
)
from cache.build.ray_executor import OnRay
from cache.build.versions import made_with
from cache.runtime.progress import Silent
from cache.runtime.ray_pool import connected
from cache.sources.samples import Source
from cache.store.journal import JournalWriter, RowGroup
from cache.store.spec import TeacherSpec


class ColumnsOnRay(OnRay):
    """Makes the columns of each group in a task of its own."""

    def __call__(self, job: ColumnsJob, plans: Sequence[GroupPlan]) -> None:
        """Make the columns of planned groups; see ``cache.build.columns.MakeColumns``."""
        progress, by_group = job.tools.progress, {plan.group.name: plan for plan in plans}
        assert job.tools.teacher is not None
        spec, tools = job.tools.teacher.spec, replace(job.tools, teacher=None, progress=Silent())
        progress.start(sum(map(rows_of, plans)), in_words(plans))
        calls = {name: (self, job.out, spec, tools, _sent(job, plan)) for name, plan in by_group.items()}
        with connected(self.cluster):
            for ended in self.results(make_here, calls, progress):
                if ended is not None:
                    progress.advance(rows_of(by_group[ended[0]]))


Sent = tuple[RowGroup, list[tuple[Column, Wanted]], Source | None]


def _sent(job: ColumnsJob, plan: GroupPlan) -> Sent:
    """Return what is sent of a group to the machine that makes its columns."""
    source = job.sources.get(plan.group.split)
    columns = [
        (column.only(group_rows(job.out, plan.group, wanted, source)), wanted)
        for column, wanted in job.of_group(plan)
    ]
    return plan.group, columns, source


def make_here(where: ColumnsOnRay, out: Path, spec: TeacherSpec, tools: Tools, sent: Sent) -> None:
    """Make and list a group's columns in this process, by its own teacher, of that ``spec``.

    UserError as the columns, and CacheMismatch if this machine's teacher is another.
    """
    here = where.writer_here(spec)
    tools = replace(
        tools,
        teacher=here.teacher,
        workers=here.workers,
        made_with=made_with(tools.batch_size, here.teacher.device),
    )
    group, columns, source = sent
    writer = JournalWriter(out, here.name)
    for line in make_group(out, group, columns, {} if source is None else {group.split: source}, tools):
        writer.add(line)
