"""One student in training: where it stands, its sums, and the files that its folder gets.

A :class:`distill.train.task.Task` says what a step's losses are and how the student is judged; steps, epochs,
checkpoints and files are the same for every task, and are here. :mod:`distill.train.loop` feeds it batches.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from cache.runtime.atomic_files import remove_temporaries, replacing, write_json
from cache.runtime.distributed import current_ranks
from cache.runtime.errors import UserError
from cache.runtime.locks import only_writer
from distill.checkpoint import Position, resume, save_checkpoint
from distill.data.batch import Batch
from distill.judge.outputs import LOGITS, OUTPUTS, save_logits, save_outputs
from distill.record.run_log import (
    LAST_EPOCHS,
    Board,
    TensorBoard,
    draw_curves,
    summarize,
    write_csv,
    write_metrics,
)
from distill.record.wandb_board import WandbRun
from distill.settings import to_toml
from distill.train.distributed import average_gradients
from distill.train.finite_guard import FiniteGuard, weights_are_finite
from distill.train.optim import set_epoch
from distill.train.session import TrainingSession
from distill.train.stopping import Stop
from distill.train.task import Counts, Task

LAST, BEST, METRICS, CSV, CONFIG, SUMMARY, CURVES = (
    "last.pt",
    "best.pt",
    "metrics.jsonl",
    "metrics.csv",
    "config.toml",
    "summary.json",
    "curves.png",
)


@dataclass(kw_only=True)
class EpochSums:
    """One epoch's sums so far, on the device: read once an epoch."""

    counts: Counts
    images: int = 0
    seconds: float = 0.0
    parts: dict[str, Tensor] = field(default_factory=dict)

    def add(self, parts: dict[str, Tensor], scores: Tensor, labels: Tensor) -> None:
        """Add a batch's losses, and count its scores."""
        self.images += len(labels)
        for name, value in parts.items():
            self.parts[name] = self.parts.get(name, 0) + value.detach().double() * len(labels)
        self.counts.add(scores, labels)

    def state(self) -> dict[str, Any]:
        """Return what goes into a checkpoint."""
        return {
            "images": self.images,
            "seconds": self.seconds,
            "parts": self.parts,
            "counts": self.counts.state(),
        }

    def metrics(self) -> dict[str, float]:
        """Return the epoch's mean losses and training metrics."""
        losses = {f"loss_{name}": float(value) / self.images for name, value in self.parts.items()}
        return {**losses, **self.counts.metrics()}


class StudentRun:
    """A student that is trained batch by batch, whoever draws the batches."""

    def __init__(self, task: Task, out: Path, *, resume_run: bool, wandb: str = "") -> None:
        """Put a task's student at the start, or with ``resume_run`` where its checkpoint left it.

        ``wandb`` names a project of Weights & Biases to write to as well.
        """
        self.task, self.out = task, out
        self._writes = current_ranks().is_first
        self._open = ExitStack()
        if self._writes:
            self._open.enter_context(only_writer(out))
            remove_temporaries(out)
        try:
            self._begin(resume_run=resume_run, wandb=wandb)
        except BaseException:
            self._open.close()
            raise

    def _begin(self, *, resume_run: bool, wandb: str) -> None:
        task, out = self.task, self.out
        self.session: TrainingSession = task.session
        self.config = self.session.config
        going_on = resume_run and (out / LAST).exists()
        self.position = resume(out / LAST, self.session) if going_on else Position()
        self._sums = self._sums_here()
        self._guard = FiniteGuard(self.session.device)
        self._boards: list[Board] = []
        self._batches: list[NDArray[np.int64]] = []
        if self._writes:
            with replacing(out / CONFIG) as temporary:
                temporary.write_text(to_toml(self.config), encoding="utf-8")
            self._write_history()
            self._boards.append(TensorBoard(out, first_epoch=self.position.epoch))
            if wandb:
                self._boards.append(WandbRun(wandb, out, self.config))

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left."""
        return self.position.epoch >= self.config.train.epochs

    def images_left(self) -> int:
        """Return how many images its remaining steps will take."""
        if self.is_trained:
            return 0
        images = [len(batch) for batch in self.batches_of(self.position.epoch)]
        return (self.config.train.epochs - self.position.epoch) * sum(images) - sum(
            images[: self.position.step]
        )

    def batches_of(self, epoch: int) -> list[NDArray[np.int64]]:
        """Return the image indices of an epoch's batches."""
        return self.session.data.epoch(
            epoch,
            batch_size=self.config.train.batch_size,
            repeats=self.config.data.repeat_epochs,
            seed=self.config.stream_seed,
        )

    def begin_epoch(self) -> None:
        """Set the epoch's learning rate and go on with its sums, if a checkpoint kept them."""
        self._batches = self.batches_of(self.position.epoch)
        self._rate = set_epoch(
            self.session.optimizer,
            self.config.optim,
            epoch=self.position.epoch,
            epochs=self.config.train.epochs,
        )
        self._sums = self._sums_here()
        self.session.student.train()

    def _sums_here(self) -> EpochSums:
        kept = self.position.sums if self.position.step else {}
        return EpochSums(**{**kept, "counts": self.task.counts(kept.get("counts", {}))})

    @contextmanager
    def clock(self) -> Iterator[None]:
        """Count the time of what is done for this student."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.spent(time.perf_counter() - began)

    def spent(self, seconds: float) -> None:
        """Count time that was spent for this student."""
        self.position.seconds += seconds
        self._sums.seconds += seconds

    def step(self, batch: Batch) -> None:
        """Take one step of the optimiser. Everything random in it is a function of seed, epoch and step."""
        session = self.session
        torch.manual_seed(model_seed(self.config.train.seed, self.position))
        session.optimizer.zero_grad(set_to_none=True)
        parts, scores = self.task.losses(batch)
        self._guard.add(parts, self.position.step)
        if self._guard.is_due(self.position.step):
            self._check_finite()
        session.scaler.scale(parts["total"]).backward()
        average_gradients(p for group in session.optimizer.param_groups for p in group["params"])
        if session.device.type != "cpu" and not session.scaler.is_enabled():
            session.optimizer.found_inf = self._guard.bad  # type: ignore[attr-defined]
        session.scaler.step(session.optimizer)
        session.scaler.update()
        self._sums.add(parts, scores, batch.label_B)
        self.position.step += 1

    def _check_finite(self) -> None:
        found = self._guard.look()
        if found is None:
            return
        step, parts = found
        said = ", ".join(f"{name} {value:g}" for name, value in parts.items())
        keys = [self.session.data.keys[i] for i in self._batches[step][:3]] if self._batches else []
        raise UserError(
            f"the loss is not finite in epoch {self.position.epoch}, step {step} ({said}; "
            f"images {', '.join(keys)}, ...)",
            fix=self._way_out(),
        )

    def _check_weights(self) -> None:
        """Refuse to save a student that the last step broke: no loss has seen it yet."""
        if weights_are_finite(self.session.student):
            return
        raise UserError(
            f"the student's weights are not finite after epoch {self.position.epoch}, step "
            f"{self.position.step - 1}",
            fix=self._way_out(),
        )

    def _way_out(self) -> str:
        before = f"; {self.out / LAST} holds the state before" if (self.out / LAST).exists() else ""
        return f"lower optim.lr, or use train.precision=float32{before}."

    @property
    def is_save_due(self) -> bool:
        """Whether the step just taken is one after which the run is saved; an epoch's end saves anyway."""
        step = self.position.step
        return step % self.config.train.checkpoint_steps == 0 and step < len(self._batches)

    def save(self) -> None:
        """Write the state within an epoch, or after its last step, before it is judged."""
        with self.clock():
            self._check_finite()
            self._check_weights()
        self._save(self._sums)

    def _save(self, sums: EpochSums | None) -> None:
        self.position.sums = sums.state() if sums is not None else {}
        if self._writes:
            save_checkpoint(self.out / LAST, self.session, self.position)

    def end_epoch(self, stop: Stop) -> str:
        """Judge what :meth:`save` wrote after the epoch's last step; return a line that says how it was.

        Raises
        ------
        LeftAtOnce
            After a signal, with the epoch not judged: a resumed run begins with that.
        """
        position, epochs = self.position, self.config.train.epochs
        speed = self._sums.images / max(self._sums.seconds, 1e-9)
        with self.clock(), stop.at_once():
            judged = self.task.judge(late=position.epoch >= epochs - LAST_EPOCHS) if self._writes else {}
        line = {
            "epoch": position.epoch,
            "lr": self._rate,
            **self._sums.metrics(),
            **judged,
            "images_per_s": speed,
        }
        position.history.append(line)
        position.epoch, position.step = position.epoch + 1, 0
        if self._writes:
            self._keep_best()
        self._save(None)
        if self._writes:
            self._write_history()
        for board in self._boards:
            board.write(line)
        return self._said(line)

    def _write_history(self) -> None:
        write_metrics(self.out / METRICS, self.position.history)
        write_csv(self.out / CSV, self.position.history)

    def _keep_best(self) -> None:
        found = self.task.chosen_by(self.position.history[-1])
        if found is not None and found > self.position.best_id_val:
            self.position.best_id_val = found
            save_checkpoint(self.out / BEST, self.session, self.position)

    def _said(self, line: dict[str, Any]) -> str:
        metrics = "  ".join(f"{label} {line[name]:.1f}%" for label, name in self.task.curves if name in line)
        return (
            f"epoch {line['epoch'] + 1}/{self.config.train.epochs}  loss {line['loss_total']:.3f}  {metrics}"
            f"  {line['images_per_s']:,.0f} images/s"
        )

    def finish(self, command: Sequence[str], stop: Stop, **said: Any) -> dict[str, Any]:
        """Write outputs, curves and the summary of a trained student, and return the summary.

        Raises
        ------
        LeftAtOnce
            After a signal: a resumed run does this alone.
        """
        if not self._writes:
            return {}
        with stop.at_once():
            more = self.task.summary(self.position.history)
            outputs = self.task.outputs()
        if outputs is not None:
            save_outputs(self.out / OUTPUTS, outputs)
            save_logits(self.out / LOGITS, outputs.logits)
        draw_curves(
            self.out / CURVES,
            self.position.history,
            curves=self.task.curves,
            of=self.task.measure,
            title=f"{self.config.student.arch}: {self.out.name}",
        )
        summary = summarize(
            self.session,
            self.position.history,
            headline=self.task.headline,
            more={**said, **more},
            seconds=self.position.seconds,
            command=command,
        )
        for board in self._boards:
            board.write_summary(summary)
        write_json(self.out / SUMMARY, summary)  # last: it says that the run has finished
        return summary

    def close(self) -> None:
        """Close what is open."""
        with self._open:
            for board in self._boards:
                board.close()


def stream_generator(seed: int, epoch: int, step: int) -> Generator:
    """Return what a step's augmentation is drawn from."""
    return torch.Generator().manual_seed(_seeds(seed, epoch, step)[0])


def model_seed(seed: int, position: Position) -> int:
    """Return the seed of what a student itself draws in a step, such as dropout; each process its own."""
    return _seeds(seed, position.epoch, position.step)[1] + current_ranks().rank


def _seeds(seed: int, epoch: int, step: int) -> tuple[int, int]:
    first, second = np.random.SeedSequence([seed, epoch, step]).generate_state(2)
    return int(first), int(second)
