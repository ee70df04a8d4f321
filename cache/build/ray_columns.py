"""Columns made as Ray tasks, a row group each, on machines that share the storage of images and cache."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
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
from cache.build.options import TeacherOptions
from cache.build.ray_executor import teacher_of
from cache.build.versions import versions
from cache.runtime.devices import default_workers
from cache.runtime.errors import CacheMismatch
from cache.runtime.machine_limits import workers_here
from cache.runtime.ray_pool import RayCluster, cannot_hold, connected, run_tasks
from cache.sources.samples import Source
from cache.store.journal import JournalWriter, RowGroup
from cache.store.spec import TeacherSpec


@dataclass(frozen=True, kw_only=True)
class ColumnsOnRay:
    """Makes the columns of each group in a task of its own; one whose worker dies is made again elsewhere.

    ``workers`` None are by each machine's device.
    """

    cluster: RayCluster
    teacher: TeacherOptions
    workers: int | None

    def __call__(self, job: ColumnsJob, plans: Sequence[GroupPlan]) -> None:
        """Make the columns of planned groups; see ``cache.build.columns.MakeColumns``."""
        tools, by_group = job.tools, {plan.group.name: plan for plan in plans}
        assert tools.teacher is not None
        setting = Setting(
            out=job.out,
            teacher=self.teacher,
            spec=tools.teacher.spec,
            dtype=tools.dtype,
            batch_size=tools.batch_size,
            workers=self.workers,
        )
        tools.progress.start(sum(map(rows_of, plans)), in_words(plans))
        calls = {name: (setting, *_sent(job, plan)) for name, plan in by_group.items()}
        with connected(self.cluster):
            if why := cannot_hold(self.cluster):
                tools.progress.note(why)
            # Ctrl-C reaches the command as it is: what is listed is kept.
            for ended in run_tasks(make_here, calls, self.cluster, fresh=False, asked_to_stop=lambda: False):
                if ended is None:
                    continue
                if isinstance(ended[1], Exception):
                    raise ended[1]
                tools.progress.advance(rows_of(by_group[ended[0]]))


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How groups' columns are made, wherever; ``spec`` is the teacher that every machine has to have."""

    out: Path
    teacher: TeacherOptions
    spec: TeacherSpec
    dtype: str
    batch_size: int
    workers: int | None


Sent = tuple[RowGroup, list[tuple[Column, Wanted]], Source | None]


def _sent(job: ColumnsJob, plan: GroupPlan) -> Sent:
    """Return what is sent of a group to the machine that makes its columns."""
    source = job.sources.get(plan.group.split)
    columns = [
        (column.only(group_rows(job.out, plan.group, wanted, source)), wanted)
        for column, wanted in job.of_group(plan)
    ]
    return plan.group, columns, source


def make_here(
    setting: Setting, group: RowGroup, columns: list[tuple[Column, Wanted]], source: Source | None
) -> None:
    """Make and list a group's columns in this process; UserError as the columns.

    CacheMismatch if this machine's teacher is another.
    """
    teacher = teacher_of(setting.teacher)
    if teacher.spec.identity() != setting.spec.identity():
        raise CacheMismatch(
            "a machine of the cluster has another teacher", fix="give all machines the same weights."
        )
    tools = Tools(
        teacher=teacher,
        dtype=setting.dtype,
        batch_size=setting.batch_size,
        workers=default_workers(teacher.device) if setting.workers is None else workers_here(setting.workers),
        made_with={
            "batch_size": setting.batch_size,
            "device": str(teacher.device),
            "versions": versions(),
        },
    )
    writer = JournalWriter(setting.out, f"{socket.gethostname()}-{os.getpid()}")
    sources = {} if source is None else {group.split: source}
    for line in make_group(setting.out, group, columns, sources, tools):
        writer.add(line)
