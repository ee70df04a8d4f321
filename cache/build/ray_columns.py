"""Columns made as Ray tasks, a row group each, on machines that share the storage of images and cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from cache.build.columns import ColumnsJob, GroupPlan, in_words, make_here, rows_of
from cache.build.ray_executor import OnRay
from cache.build.versions import made_with
from cache.runtime.distributed import Ranks
from cache.runtime.progress import Silent
from cache.runtime.ray_pool import connected
from cache.store.spec import TeacherSpec


class ColumnsOnRay(OnRay):
    """Makes the columns of each group in a task of its own."""

    def __call__(self, job: ColumnsJob, plans: Sequence[GroupPlan]) -> None:
        """Make the columns of planned groups; see ``cache.build.columns.MakeColumns``."""
        progress, by_group = job.tools.progress, {plan.group.name: plan for plan in plans}
        assert job.tools.teacher is not None
        spec = job.tools.teacher.spec
        progress.start(sum(map(rows_of, plans)), in_words(plans), "rows")
        calls = {name: (self, spec, _job_of(job, plan), plan) for name, plan in by_group.items()}
        with connected(self.cluster):
            for ended in self.results(make_there, calls, progress):
                if ended is not None:
                    progress.advance(rows_of(by_group[ended[0]]))


def _job_of(job: ColumnsJob, plan: GroupPlan) -> ColumnsJob:
    """Return what is sent to the machine that makes the columns of a group: nothing of other groups."""
    split = plan.group.split
    return replace(
        job,
        sources={split: job.sources[split]} if split in job.sources else {},
        columns=[column.only(job.rows(plan.group, plan.wanted[column.name])) for column in job.lacked(plan)],
        tools=replace(job.tools, teacher=None, progress=Silent()),
        ranks=Ranks(),
    )


def make_there(where: ColumnsOnRay, spec: TeacherSpec, job: ColumnsJob, plan: GroupPlan) -> None:
    """Make and list a group's columns in this process, by its own teacher, of that ``spec``.

    UserError as the columns, and CacheMismatch if this machine's teacher is another.
    """
    here = where.writer_here(spec)
    tools = replace(
        job.tools,
        teacher=here.teacher,
        workers=here.workers,
        made_with=made_with(job.tools.batch_size, here.teacher.device),
    )
    make_here(replace(job, tools=tools), [plan], writer=here.name)
