"""The loop: train a student from the cache, whatever the task. No teacher is in memory.

A :class:`Task` says what a step's losses are and how the student is judged; steps, epochs, signals,
checkpoints and the files that a run leaves are the same for every task, and are here.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from cache.devices import keep_freed_memory
from cache.errors import UserError
from cache.files import replacing
from cache.progress import Progress, Silent
from distill.batch import Batch
from distill.checkpoint import Position, resume, save_checkpoint
from distill.config import to_toml
from distill.optim import set_epoch
from distill.runlog import LAST_EPOCHS, TensorBoard, draw_curves, write_metrics, write_summary
from distill.session import TrainingSession

LAST, BEST, METRICS, CONFIG, SUMMARY, CURVES = (
    "last.pt",
    "best.pt",
    "metrics.jsonl",
    "config.toml",
    "summary.json",
    "curves.png",
)


class Counts(Protocol):
    """How well an epoch's training batches were classified so far, counted on the device."""

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count one batch: scores [B, C] and its labels."""

    def state(self) -> dict[str, Tensor]:
        """Return what goes into a checkpoint."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return the epoch's training metrics, in percent."""
        ...


class Task(Protocol):
    """What is trained and how it is judged."""

    @property
    def session(self) -> TrainingSession:
        """The parts of the run."""
        ...

    @property
    def curves(self) -> tuple[tuple[str, str], ...]:
        """(label, metric) of what is drawn and said of every epoch, in percent."""
        ...

    @property
    def measure(self) -> str:
        """What the curves are of."""
        ...

    @property
    def headline(self) -> str:
        """What the summary's numbers are."""
        ...

    def losses(self, batch: Batch, generator: Generator) -> tuple[dict[str, Tensor], Tensor]:
        """Return a batch's losses with their ``total``, and its scores [B, C] without gradient."""
        ...

    def counts(self, state: dict[str, Tensor]) -> Counts:
        """Return counts that go on from ``state``, which may be empty."""
        ...

    def judge(self, *, late: bool) -> dict[str, float]:
        """Return the metrics of the splits; ``late`` in the last epochs, where every split is judged."""
        ...

    def chosen_by(self, metrics: dict[str, float]) -> float | None:
        """Return what the best epoch has most of, from ``id_val`` alone; None where there is none."""
        ...

    def summary(self, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return what the summary says beside the means of the metrics."""
        ...


class Stopped(Exception):
    """A signal stopped the run; its checkpoint is written. ``signal_number`` says which."""

    def __init__(self, signal_number: int, out: Path) -> None:
        super().__init__(f"stopped, and saved in {out / LAST}; go on with the same command and --resume.")
        self.signal_number = signal_number


@dataclass(kw_only=True)
class _Stop:
    signal_number: int = 0


@contextmanager
def _listening() -> Iterator[_Stop]:
    """Turn SIGTERM and Ctrl-C into a request to stop after the step."""
    stop = _Stop()

    def ask(number: int, frame: FrameType | None) -> None:
        del frame
        stop.signal_number = number

    # Only the main thread may set handlers; elsewhere a run cannot be signalled.
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass(kw_only=True)
class EpochSums:
    """One epoch's sums so far, on the device: read once an epoch."""

    counts: Counts
    images: int = 0
    parts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, parts: dict[str, Tensor], scores: Tensor, labels: Tensor) -> None:
        """Add a batch's losses, and count its scores."""
        self.images += len(labels)
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0) + value.detach().double() * len(labels)
        self.counts.add(scores, labels)

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {"images": self.images, "parts": self.parts, "counts": self.counts.state()}

    def metrics(self) -> dict[str, float]:
        """Return the epoch's mean losses and training metrics."""
        losses = {f"loss_{name}": float(value) / self.images for name, value in self.parts.items()}
        return {**losses, **self.counts.metrics()}


def check_out(out: Path, *, resume_run: bool) -> None:
    """Make sure that ``out`` is new, or with ``resume_run`` a run; UserError else."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out} is a file", fix="choose a new folder for --out.")
    if out.is_dir() and any(out.iterdir()) and not resume_run:
        raise UserError(f"{out} is not empty", fix="choose a new folder, or continue that run with --resume.")
    if resume_run and not (out / CONFIG).is_file():
        raise UserError(f"{out} holds no run to resume", fix="leave --resume out, or give the run's folder.")


def fit(
    task: Task,
    out: Path,
    *,
    resume_run: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] = (),
) -> dict[str, Any]:
    """Train a task's student and return its summary, which is also ``out/summary.json``.

    Parameters
    ----------
    out
        A new folder; with ``resume_run`` one that holds this very run, which then goes on to the same
        numbers as one that was never interrupted.

    Raises
    ------
    UserError
        If ``out`` holds another run, or a loss is not finite.
    Stopped
        After SIGTERM or Ctrl-C, with the state saved.
    """
    progress, session = progress or Silent(), task.session
    keep_freed_memory(session.device)
    position = resume(out / LAST, session) if resume_run and (out / LAST).exists() else Position()
    with replacing(out / CONFIG) as temporary:
        temporary.write_text(to_toml(session.config), encoding="utf-8")
    write_metrics(out / METRICS, position.history)
    board = TensorBoard(out, first_epoch=position.epoch)
    epochs = session.config.train.epochs
    progress.start(_images_left(session, position))
    try:
        with _listening() as stop:
            while position.epoch < epochs:
                _epoch(task, position, out, stop, progress)
                board.write(position.history[-1])
        more = task.summary(position.history)
        board.write_space(more.get("space", {}), epochs - 1)
    finally:
        board.close()
    title = f"{session.config.student.arch}: {out.name}"
    draw_curves(out / CURVES, position.history, curves=task.curves, of=task.measure, title=title)
    return write_summary(
        out / SUMMARY,
        session,
        position.history,
        headline=task.headline,
        more=more,
        seconds=position.seconds,
        command=command or sys.argv,
    )


def _epoch(task: Task, position: Position, out: Path, stop: _Stop, progress: Progress) -> None:
    """Train one epoch from where it stands, judge, and save."""
    session, began = task.session, time.perf_counter()
    config = session.config.train
    lr = set_epoch(session.optimizer, session.config.optim, epoch=position.epoch, epochs=config.epochs)
    batches = _batches(session, position)
    sums = sums_of(task, position)
    session.student.train()
    before = sums.images
    for batch in session.data.batches(batches[position.step :]):
        step(task, batch, position, sums)
        position.step += 1
        progress.advance(len(batch.keys))
        if stop.signal_number or (
            position.step % config.checkpoint_steps == 0 and position.step < len(batches)
        ):
            _save(session, position, sums, out, began)
            began = time.perf_counter()
        if stop.signal_number:
            raise Stopped(stop.signal_number, out)
    train_seconds = time.perf_counter() - began
    line = {
        "epoch": position.epoch,
        "lr": lr,
        **sums.metrics(),
        **task.judge(late=position.epoch >= config.epochs - LAST_EPOCHS),
        "images_per_s": (sums.images - before) / max(train_seconds, 1e-9),
    }
    position.history.append(line)
    position.epoch, position.step = position.epoch + 1, 0
    _keep_best(task, position, out)
    _save(session, position, None, out, began)
    write_metrics(out / METRICS, position.history)
    progress.note(_said(task, line))


def _batches(session: TrainingSession, position: Position) -> list[NDArray[np.int64]]:
    config = session.config
    return session.data.epoch(
        position.epoch,
        batch_size=config.train.batch_size,
        repeats=config.data.repeat_epochs,
        seed=config.train.seed,
    )


def _images_left(session: TrainingSession, position: Position) -> int:
    if position.epoch == session.config.train.epochs:
        return 0
    images = [len(batch) for batch in _batches(session, position)]
    return (session.config.train.epochs - position.epoch) * sum(images) - sum(images[: position.step])


def sums_of(task: Task, position: Position) -> EpochSums:
    """Return an epoch's sums, gone on with where a checkpoint kept them."""
    kept = position.sums if position.step else {}
    return EpochSums(**{**kept, "counts": task.counts(kept.get("counts", {}))})


def _save(
    session: TrainingSession, position: Position, sums: EpochSums | None, out: Path, began: float
) -> None:
    position.seconds += time.perf_counter() - began
    position.sums = sums.state() if sums is not None else {}
    save_checkpoint(out / LAST, session, position)


def step(task: Task, batch: Batch, position: Position, sums: EpochSums) -> None:
    """One step of the optimiser. Everything random in it is a function of seed, epoch and step."""
    session = task.session
    source = np.random.SeedSequence([session.config.train.seed, position.epoch, position.step])
    seeds = source.generate_state(2)
    generator = torch.Generator().manual_seed(int(seeds[0]))
    torch.manual_seed(int(seeds[1]))
    batch = batch.to(session.device)
    session.optimizer.zero_grad(set_to_none=True)
    parts, scores = task.losses(batch, generator)
    if not torch.isfinite(parts["total"]):
        raise _not_finite(parts, batch, position)
    session.scaler.scale(parts["total"]).backward()
    session.scaler.step(session.optimizer)
    session.scaler.update()
    sums.add(parts, scores, batch.label_B)


def _not_finite(parts: dict[str, Tensor], batch: Batch, position: Position) -> UserError:
    said = ", ".join(f"{name} {value.item():g}" for name, value in parts.items())
    return UserError(
        f"the loss is not finite in epoch {position.epoch}, step {position.step} ({said}; "
        f"images {', '.join(batch.keys[:3])}, ...)",
        fix="lower optim.lr, or use train.precision=float32; last.pt holds the state before.",
    )


def _keep_best(task: Task, position: Position, out: Path) -> None:
    found = task.chosen_by(position.history[-1])
    if found is not None and found > position.best_id_val:
        position.best_id_val = found
        save_checkpoint(out / BEST, task.session, position)


def _said(task: Task, line: dict[str, Any]) -> str:
    metrics = "  ".join(f"{label} {line[name]:.1f}%" for label, name in task.curves if name in line)
    epochs = task.session.config.train.epochs
    return (
        f"epoch {line['epoch'] + 1}/{epochs}  loss {line['loss_total']:.3f}  {metrics}  "
        f"{line['images_per_s']:,.0f} images/s"
    )
