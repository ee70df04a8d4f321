"""The loop: batches from the cache to one student, or to several beside each other. No teacher is in memory.

Students that take the same stream of batches are trained together for the price of one stream: images are
read, decoded, augmented and moved to the device once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cache.runtime.errors import UserError
from cache.runtime.progress import Progress, Silent
from distill.train.beside import Students, asked_to_stop, beside, stopped
from distill.train.run import StudentRun
from distill.train.shared_batches import shared_batches
from distill.train.stopping import Stop, listening


def fit_together(
    begun: Sequence[StudentRun | UserError], *, progress: Progress | None = None
) -> list[dict[str, Any] | UserError]:
    """Train students that take one stream of batches; return each one's summary, or why it failed.

    The stream is that of the first; see :func:`distill.data.stream.stream_settings`. One that could not begin
    is given as the reason why, in every process the same. A student whose loss is not finite drops out, and
    the others go on; in the end the folders of all are closed. Under torchrun every batch is shared by the
    processes; the first writes, and all return its summaries. Stopped after SIGTERM or Ctrl-C, with every
    student saved.
    """
    with beside(begun, progress or Silent()) as students, listening() as stop:
        students.begin(stop)
        while runs := students.furthest_behind():
            train_epoch(runs, students, stop)
        return students.summaries(stop)


def train_epoch(runs: Sequence[StudentRun], students: Students, stop: Stop) -> None:
    """Train students for the rest of their epoch, then save and judge them."""
    for run in runs:
        run.begin_epoch()
    epoch, first = runs[0].position.epoch, min(run.position.step for run in runs)
    for batch in shared_batches(runs[0].session, epoch, first=first):
        due = [run for run in students.going(runs) if run.position.step == batch.step]
        for run in due:
            students.step(run, batch)
        students.progress.advance(len(batch.chosen) * len(due))
        asked = asked_to_stop(stop, batch.step)
        students.save([run for run in students.going(due) if asked or run.is_save_due])
        if asked:
            raise stopped(asked, runs)
    # The weights of all are on the disk before any is judged, which can take longer than the epoch.
    students.save(students.going(runs))
    students.judge(students.going(runs), stop)
