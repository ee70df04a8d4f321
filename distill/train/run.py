"""One student in training, and a step of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from distill.data.batch import Batch
from distill.judge.evaluate import Result, metrics_of
from distill.record.run_files import LAST
from distill.record.run_log import LAST_EPOCHS
from distill.train.distributed import average_gradients, gather_outputs
from distill.train.epoch_sums import EpochSums, clock
from distill.train.finite_guard import FiniteGuard, check_losses, check_weights
from distill.train.optim import set_epoch
from distill.train.outputs_of_run import outputs_of_run
from distill.train.run_folder import RunFolder
from distill.train.seeds import model_seed
from distill.train.session import Position, Session, resume
from distill.train.stopping import Stop
from distill.train.summary import epoch_line, judge_splits, summarize, trained_outputs


class StudentRun:
    """A student that is trained batch by batch, whoever draws the batches."""

    def __init__(self, session: Session, out: Path, *, resume_run: bool, wandb: str = "") -> None:
        """Put a session's student at the start, or with ``resume_run`` where its checkpoint left it.

        ``wandb`` names a project of Weights & Biases to write to as well.
        """
        self.session, self.config, self.out = session, session.config, out
        self.folder = RunFolder(out)
        try:
            going_on = resume_run and (out / LAST).exists()
            self.position = resume(out / LAST, session) if going_on else Position()
            self.sums = EpochSums.at(self.position, session.model)
            self.folder.begin(self.config, self.position, wandb=wandb)
        except BaseException:
            self.folder.close()
            raise
        self.guard = FiniteGuard(session.model.device)
        self.batches: list[NDArray[np.int64]] = []
        self.results: dict[str, Result] = {}

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left."""
        return self.position.epoch >= self.config.train.epochs

    def images_left(self) -> int:
        """Return how many images its remaining steps will take."""
        if self.is_trained:
            return 0
        images = [len(batch) for batch in self.session.batches_of(self.position.epoch)]
        return (self.config.train.epochs - self.position.epoch) * sum(images) - sum(
            images[: self.position.step]
        )

    def begin_epoch(self) -> None:
        """Set the epoch's learning rate and go on with its sums, if a checkpoint kept them."""
        self.batches = self.session.batches_of(self.position.epoch)
        epoch, epochs = self.position.epoch, self.config.train.epochs
        self.rate = set_epoch(self.session.optimizer, self.config.optim, epoch=epoch, epochs=epochs)
        self.sums = EpochSums.at(self.position, self.session.model)
        self.session.model.student.train()

    def step(self, batch: Batch, *, spent: float = 0.0) -> None:
        """Take one step of the optimiser; ``spent`` is how many seconds the batch took."""
        model, optimizer, scaler = self.session.model, self.session.optimizer, self.session.scaler
        with clock(self.position, self.sums, spent=spent):
            torch.manual_seed(model_seed(self.config.train.seed, self.position.epoch, self.position.step))
            optimizer.zero_grad(set_to_none=True)
            with model.autocast():
                outputs = model.student(batch.image_BXRR)
            losses, scores = model.losses(gather_outputs(outputs, len(batch.keys)), batch)
            self.guard.add(losses, self.position.step)
            if self.guard.is_due(self.position.step):
                self._check_losses()
            scaler.scale(losses["total"]).backward()
            average_gradients(p for group in optimizer.param_groups for p in group["params"])
            if model.device.type != "cpu" and not scaler.is_enabled():
                self.guard.skip_bad_steps(optimizer)
            scaler.step(optimizer)
            scaler.update()
            self.sums.add(losses, scores, batch.label_B)
            self.position.step += 1

    def _check_losses(self) -> None:
        check_losses(self.guard, self.session, self.position, self.batches, self.out)

    @property
    def is_save_due(self) -> bool:
        """Whether the step just taken is one after which the run is saved; an epoch's end saves anyway."""
        step = self.position.step
        return step % self.config.train.checkpoint_steps == 0 and step < len(self.batches)

    def save(self) -> None:
        """Write the state within an epoch, or after its last step, before it is judged."""
        with clock(self.position, self.sums):
            self._check_losses()
            check_weights(self.session.model.student, self.position, self.out)
        self.position.sums = self.sums.state()
        self.folder.save(self.session, self.position)

    def end_epoch(self, stop: Stop) -> str:
        """Judge what :meth:`save` wrote after the epoch's last step; return a line that says how it was.

        Raises
        ------
        LeftAtOnce
            After a signal, with the epoch not judged: a resumed run begins with that.
        """
        position, speed = self.position, self.sums.images_per_s
        late = position.epoch >= self.config.train.epochs - LAST_EPOCHS
        with clock(position, self.sums), stop.at_once():
            self.results = judge_splits(self.session, late=late) if self.folder.writes else {}
        judged = metrics_of(self.results)
        line = {"epoch": position.epoch, "lr": self.rate, **self.sums.metrics(), **judged}
        position.history.append({**line, "images_per_s": speed})
        position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
        self.folder.end_epoch(self.session, position)
        return epoch_line(self.session, position.history[-1])

    def finish(self, command: Sequence[str], stop: Stop, **more: Any) -> dict[str, Any]:
        """Write outputs, curves and the summary of a trained student, and return the summary.

        Raises
        ------
        LeftAtOnce
            After a signal: a resumed run does this alone.
        """
        if not self.folder.writes:
            return {}
        session, position = self.session, self.position
        with stop.at_once():
            if not self.results:  # a run that had ended before its summary was written
                self.results = judge_splits(session, late=True)
            trained = trained_outputs(session)
            summary = summarize(session, position, self.results, trained, command=command, more=more)
            outputs = outputs_of_run(session, trained)
        self.folder.end(session, position, summary, outputs)
        return summary

    def close(self) -> None:
        """Close what is open."""
        self.folder.close()
