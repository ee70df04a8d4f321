"""The loop: batches from the cache to one student, or to several beside each other. No teacher is in memory.

Students that take the same stream of batches are trained together for the price of one stream: images are
read, decoded, augmented and moved to the device once.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from cache.runtime.atomic_files import is_leftover
from cache.runtime.devices import keep_freed_memory
from cache.runtime.distributed import current_ranks, in_every_process
from cache.runtime.errors import UserError, some_of
from cache.runtime.progress import Progress, Silent
from cache.runtime.transfer import to_device
from distill.data.batch import own_share
from distill.data.training_data import BatchColumns
from distill.train.optim import lost_schedule
from distill.train.run import BEST, CONFIG, CURVES, LAST, METRICS, SUMMARY, StudentRun, Task, stream_generator
from distill.train.stopping import LeftAtOnce, Stop, Stopped, listening

__all__ = [
    "BEST",
    "CONFIG",
    "CURVES",
    "LAST",
    "METRICS",
    "SUMMARY",
    "Member",
    "Stopped",
    "fit",
    "fit_together",
]

T = TypeVar("T")

# Processes of one run ask each other so often whether to stop: to ask is to wait for the slowest.
STEPS_BETWEEN_TALKS = 8


def check_out(out: Path, *, resume_run: bool) -> None:
    """Make sure that ``out`` is new, or with ``resume_run`` a run; UserError else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", fix="choose a new folder for --out.")
    # What a process that was killed in its first moments left is no file of anybody's.
    found = [path for path in out.iterdir() if not is_leftover(path)] if out.is_dir() else []
    if found and not resume_run:
        raise UserError(f"{out} is not empty", fix="choose a new folder, or continue that run with --resume.")
    if resume_run and not (out / CONFIG).is_file():
        raise UserError(f"{out} holds no run to resume", fix="leave --resume out, or give the run's folder.")


@dataclass(frozen=True, kw_only=True)
class Member:
    """One student of several: its task, its folder, and whether that holds a run to go on with.

    ``wandb`` names a project of Weights & Biases to write to as well; ``command`` is what its summary says
    that made it, this process's unless given.
    """

    task: Task
    out: Path
    resume_run: bool = False
    wandb: str = ""
    command: Sequence[str] = ()


def fit(
    task: Task,
    out: Path,
    *,
    resume_run: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    wandb: str = "",
) -> dict[str, Any]:
    """Train a task's student and return its summary, which is also ``out/summary.json``.

    Under torchrun the batch is shared by the processes; the first writes, and all return its summary.

    Parameters
    ----------
    out
        A new folder; with ``resume_run`` one that holds this very run, which then goes on to the same
        numbers as one that was never interrupted.
    wandb
        A project of Weights & Biases to write to as well.

    Raises
    ------
    UserError
        If ``out`` holds another run, a loss is not finite, or Weights & Biases cannot begin.
    Stopped
        After SIGTERM or Ctrl-C, with the state saved.
    """
    member = Member(task=task, out=out, resume_run=resume_run, wandb=wandb, command=command)
    (found,) = fit_together([member], progress=progress)
    if isinstance(found, UserError):
        raise found
    return found


def fit_together(
    members: Sequence[Member], *, progress: Progress | None = None
) -> list[dict[str, Any] | UserError]:
    """Train students that take one stream of batches; return each one's summary, or why it failed.

    The stream is that of the first; see :func:`distill.data.stream.stream_settings`. A student that cannot
    begin, or whose loss is not finite, drops out, and the others go on.

    Raises
    ------
    Stopped
        After SIGTERM or Ctrl-C, with every student saved.
    """
    progress = progress or Silent()
    begun = [_begun(member) for member in members]
    runs = [run for run in begun if isinstance(run, StudentRun)]
    failed: dict[StudentRun, UserError] = {}
    try:
        for line in dict.fromkeys(lost_schedule(run.config.optim, run.config.train.epochs) for run in runs):
            if line:
                progress.note(line)
        progress.start(sum(run.images_left() for run in runs))
        with listening() as stop:
            while left := [run for run in runs if not run.is_trained and run not in failed]:
                _epoch(left, failed, stop, progress)
            beside = {"trained_beside": len(runs) - 1} if len(runs) > 1 else {}
            found: list[Any] = [
                run
                if isinstance(run, UserError)
                else failed.get(run)
                or _unless_asked(partial(run.finish, member.command or sys.argv, stop, **beside), runs, stop)
                for run, member in zip(begun, members, strict=True)
            ]
        for run in runs:
            _note_unreadable(run, progress)
        return current_ranks().from_first(found)
    finally:
        for run in runs:
            run.close()


def _note_unreadable(run: StudentRun, progress: Progress) -> None:
    """Name the test images that were left out because they cannot be read."""
    for split in run.session.evals.values():
        if unreadable := split.pixels.unreadable:
            progress.note(
                f"{len(unreadable):,} of {len(split.pixels.records):,} images of {split.name} cannot be read "
                f"and are left out: {some_of([f'{key} ({reason})' for key, reason in unreadable.items()])}"
            )


def _begun(member: Member) -> StudentRun | UserError:
    """Return a member's run, or why it cannot begin, in every process the same."""
    keep_freed_memory(member.task.session.device)
    return in_every_process(
        lambda: StudentRun(member.task, member.out, resume_run=member.resume_run, wandb=member.wandb)
    )


def _epoch(
    left: Sequence[StudentRun], failed: dict[StudentRun, UserError], stop: Stop, progress: Progress
) -> None:
    """Train those that are furthest behind for the rest of their epoch."""
    epoch = min(run.position.epoch for run in left)
    runs = [run for run in left if run.position.epoch == epoch]
    for run in runs:
        run.begin_epoch()
    stream = runs[0]
    batches, first = stream.batches_of(epoch), min(run.position.step for run in runs)
    images = stream.session.data.images(batches[first:])
    began = time.perf_counter()
    for step, (chosen, decoded) in enumerate(images, start=first):
        due = [run for run in runs if run.position.step == step and run not in failed]
        if due:
            failed |= _step(due, epoch, step, chosen, decoded, began, progress)
        asked = _asked(stop, step)
        saved = [run for run in due if run not in failed and (asked or run.is_save_due)]
        failed |= _tried({run: run.save for run in saved}, progress)
        began = time.perf_counter()
        if asked:
            raise _stopped(asked, runs)
    # The weights of all are on the disk before any is judged, which can take longer than the epoch.
    failed |= _tried({run: run.save for run in runs if run not in failed}, progress)
    for run in (run for run in runs if run not in failed):
        said = _unless_asked(partial(run.end_epoch, stop), runs, stop)
        if isinstance(said, UserError):
            failed |= _dropped(run, said, progress)
        else:
            progress.note(said if len(left) == 1 else f"{run.out.name}: {said}")


def _step(
    due: Sequence[StudentRun],
    epoch: int,
    step: int,
    chosen: NDArray[np.int64],
    decoded: Tensor,
    began: float,
    progress: Progress,
) -> dict[StudentRun, UserError]:
    """Take a step of every student with one batch, augmented and moved once; return those that failed.

    ``began`` is when the batch was asked for: what it took is counted for each, as if it were alone.
    """
    failed: dict[StudentRun, UserError] = {}
    stream = due[0]
    share, device = own_share(len(chosen)), stream.session.device
    generator = stream_generator(stream.config.stream_seed, epoch, step)
    crops = stream.session.data.crops(chosen, generator)
    augmented = stream.task.augmented(to_device(decoded, device), generator, share, crops)
    columns, shared = BatchColumns(chosen, device), time.perf_counter() - began
    for run in due:
        run.spent(shared)
        try:
            with run.clock():
                run.step(run.session.data.batch(chosen, augmented, crops, columns))
        except UserError as error:  # the same in every process: all have the losses of the whole batch
            failed |= _dropped(run, error, progress)
    progress.advance(len(chosen) * len(due))
    return failed


def _asked(stop: Stop, step: int) -> int:
    """Return the signal that asks every process to stop; they talk about it at the same steps."""
    ranks = current_ranks()
    return ranks.largest(stop.signal_number) if ranks.world == 1 or step % STEPS_BETWEEN_TALKS == 0 else 0


def _unless_asked(action: Callable[[], T], runs: Sequence[StudentRun], stop: Stop) -> T | UserError:
    """Return what :func:`in_every_process` gives; Stopped where a signal asked one of the processes to stop.

    What ``action`` saves it has saved by then, or it was left at once and a resumed run does it again.
    """

    def left_or_done() -> T | None:
        try:
            return action()
        except LeftAtOnce:
            return None

    found = in_every_process(left_or_done)
    asked = current_ranks().largest(stop.signal_number)
    if asked or found is None:
        raise _stopped(asked, runs)
    return found


def _stopped(signal_number: int, runs: Sequence[StudentRun]) -> Stopped:
    where = " and ".join(str(run.out / LAST) for run in runs[:2])
    return Stopped(signal_number, where if len(runs) < 3 else f"{where} and {len(runs) - 2} more")


def _tried(actions: dict[StudentRun, Callable[[], None]], progress: Progress) -> dict[StudentRun, UserError]:
    """Do something for each of some students; return those for which it failed."""
    failed: dict[StudentRun, UserError] = {}
    for run, action in actions.items():
        error = in_every_process(action)
        if error is not None:
            failed |= _dropped(run, error, progress)
    return failed


def _dropped(run: StudentRun, error: UserError, progress: Progress) -> dict[StudentRun, UserError]:
    progress.note(f"{run.out.name} failed: {error}")
    return {run: error}
