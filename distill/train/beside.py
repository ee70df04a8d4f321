"""Students trained beside each other, by one process or several: who failed, who goes on, when all stop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from cache.runtime.devices import keep_freed_memory
from cache.runtime.distributed import current_ranks, in_every_process
from cache.runtime.errors import UserError, some_of
from cache.runtime.progress import Progress
from distill.record.run_files import LAST
from distill.train.ends import end_epoch, finish
from distill.train.head_only import begin_head, wants_head
from distill.train.run import StudentRun
from distill.train.schedule import lost_schedule
from distill.train.shared_batches import SharedBatch
from distill.train.stopping import LeftAtOnce, Stop, Stopped

T = TypeVar("T")

# Processes of one run ask each other so often whether to stop: to ask is to wait for the slowest.
STEPS_BETWEEN_TALKS = 8


@dataclass(kw_only=True)
class Students:
    """Students beside each other: one that cannot begin, or fails, is an error, and the others go on."""

    begun: Sequence[StudentRun | UserError]
    progress: Progress
    failed: dict[StudentRun, UserError] = field(default_factory=dict)

    @property
    def runs(self) -> list[StudentRun]:
        """Those that could begin."""
        return [run for run in self.begun if isinstance(run, StudentRun)]

    def going(self, runs: Sequence[StudentRun]) -> list[StudentRun]:
        """Return those of some students that have not failed."""
        return [run for run in runs if run not in self.failed]

    def begin(self, stop: Stop) -> None:
        """Make the heads of those that begin with one of their own, or have nothing else trained."""
        for run in self.runs:
            if wants_head(run):
                line = self._unless_asked(partial(begin_head, run, self.progress, stop), stop)
                if isinstance(line, UserError):
                    self._drop(run, line)
                elif line:
                    self.progress.note(line if len(self.begun) == 1 else f"{run.out.name}: {line}")
        unit = self.runs[0].session.model.unit if self.runs else "images"
        self.progress.start(sum(_images_left(run) for run in self.runs), "training", unit)

    def furthest_behind(self) -> list[StudentRun]:
        """Return the students whose epoch is next; none when all are trained."""
        left = [run for run in self.going(self.runs) if not run.is_trained]
        epoch = min((run.position.epoch for run in left), default=0)
        return [run for run in left if run.position.epoch == epoch]

    def step(self, run: StudentRun, batch: SharedBatch) -> None:
        """Take a student's step; what is wrong is so in every process: all have the whole batch's losses."""
        try:
            run.step(batch.of(run.session.data), spent=batch.seconds)
        except UserError as error:
            self._drop(run, error)

    def save(self, runs: Sequence[StudentRun]) -> None:
        """Save some students."""
        for run in runs:
            error = in_every_process(run.save)
            if error is not None:
                self._drop(run, error)

    def judge(self, runs: Sequence[StudentRun], stop: Stop) -> None:
        """End the epoch of some students, which are saved."""
        for run in runs:
            line = self._unless_asked(partial(end_epoch, run, stop), stop)
            if isinstance(line, UserError):
                self._drop(run, line)
            else:
                self.progress.note(line if len(self.begun) == 1 else f"{run.out.name}: {line}")

    def summaries(self, stop: Stop) -> list[dict[str, Any] | UserError]:
        """Finish all that are trained; return each one's summary, or why it failed."""
        beside = {"trained_beside": len(self.runs) - 1} if len(self.runs) > 1 else {}
        ends: list[dict[str, Any] | UserError] = []
        for run in self.begun:
            if isinstance(run, UserError):
                ends.append(run)
            elif run in self.failed:
                ends.append(self.failed[run])
            else:
                ends.append(self._unless_asked(partial(finish, run, stop, **beside), stop))
        for run in self.runs:
            _note_unreadable(run, self.progress)
        return current_ranks().from_first(lambda: ends)

    def _drop(self, run: StudentRun, error: UserError) -> None:
        if len(self.begun) > 1:  # of one run it is how the command ends
            self.progress.note(f"{run.out.name} failed: {error}")
        self.failed[run] = error

    def _unless_asked(self, action: Callable[[], T], stop: Stop) -> T | UserError:
        """Return what :func:`in_every_process` gives; Stopped where a signal asked a process to stop.

        What ``action`` saves it has saved by then, or it was left at once and a resumed run does it again.
        """

        def left_or_done() -> T | None:
            try:
                return action()
            except LeftAtOnce:
                return None

        end = in_every_process(left_or_done)
        asked = current_ranks().largest(stop.signal_number)
        if asked or end is None:
            raise stopped(asked, self.runs)
        return end


@contextmanager
def beside(begun: Sequence[StudentRun | UserError], progress: Progress) -> Iterator[Students]:
    """Announce the work of some students, and close their folders at the end."""
    students = Students(begun=begun, progress=progress)
    try:
        for device in {run.session.model.device for run in students.runs}:
            keep_freed_memory(device)
        whole = [run.config for run in students.runs if run.config.train.head_only == "off"]
        optims = [(config.optim, config.train.epochs) for config in whole]
        for line in dict.fromkeys(lost_schedule(optim, epochs) for optim, epochs in optims):
            if line:
                progress.note(line)
        yield students
    finally:
        for run in students.runs:
            run.folder.close()


def _images_left(run: StudentRun) -> int:
    """Return how many images a student's remaining steps will take."""
    if run.is_trained or run.config.train.head_only != "off":
        return 0
    images = [len(batch) for batch in run.session.batches_of(run.position.epoch)]
    whole = (run.config.train.epochs - run.position.epoch) * sum(images)
    return whole - sum(images[: run.position.step])


def _note_unreadable(run: StudentRun, progress: Progress) -> None:
    """Name the test images that were left out because they cannot be read."""
    for split in run.session.splits.values():
        if unreadable := split.pixels.unreadable:
            progress.note(
                f"{len(unreadable):,} of {len(split.pixels.samples):,} images of {split.name} cannot be read "
                f"and are left out: {some_of([f'{key} ({reason})' for key, reason in unreadable.items()])}"
            )


def asked_to_stop(stop: Stop, step: int) -> int:
    """Return the signal that asks every process to stop; they talk about it at the same steps."""
    ranks = current_ranks()
    return ranks.largest(stop.signal_number) if ranks.world == 1 or step % STEPS_BETWEEN_TALKS == 0 else 0


def stopped(signal_number: int, runs: Sequence[StudentRun]) -> Stopped:
    """Return what says that a signal stopped some students, and where they are saved."""
    where = " and ".join(str(run.out / LAST) for run in runs[:2])
    return Stopped(signal_number, where if len(runs) < 3 else f"{where} and {len(runs) - 2} more")
