"""One student in training, and a step of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from distill.data.batch import Batch
from distill.judge.evaluate import Result
from distill.precision import autocast
from distill.record.run_files import LAST
from distill.train.distributed import average_gradients, gather_outputs
from distill.train.epoch_sums import EpochSums, clock
from distill.train.finite_guard import FiniteGuard
from distill.train.optim import set_epoch
from distill.train.run_folder import RunFolder
from distill.train.session import Position, Session, resume
from distill.train.shared_batches import model_seed


class StudentRun:
    """A student that is trained batch by batch, whoever draws the batches."""

    def __init__(
        self,
        session: Session,
        out: Path,
        *,
        resume_run: bool = False,
        wandb: str = "",
        command: Sequence[str] = (),
    ) -> None:
        """Put a session's student at the start, or with ``resume_run`` where its checkpoint left it.

        ``wandb`` names a project of Weights & Biases to write to as well; ``command`` is what the summary
        says that made the run.
        """
        self.session, self.config, self.out, self.command = session, session.config, out, command
        self.folder = RunFolder(out)
        try:
            going_on = resume_run and (out / LAST).exists()
            self.position = resume(out / LAST, session) if going_on else Position()
            self.folder.begin(self.config, self.position, wandb=wandb)
        except BaseException:
            self.folder.close()
            raise
        self.guard = FiniteGuard(session, out)
        self.batches: Sequence[Any] = ()
        self.results: dict[str, Result] = {}
        # Of a head on the features of its trunk, which then decodes nothing anew.
        self.outputs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left."""
        return self.position.epoch >= self.config.train.epochs

    def begin_epoch(self) -> None:
        """Set the epoch's learning rate and go on with its sums, if a checkpoint kept them."""
        epoch, epochs = self.position.epoch, self.config.train.epochs
        self.batches = self.session.batches_of(epoch)
        self.rate = set_epoch(self.session.optimizer, self.config.optim, epoch=epoch, epochs=epochs)
        self.sums = EpochSums.at(self.position, self.session.model)
        self.session.model.student.train()

    def step(self, batch: Batch, *, spent: float = 0.0) -> None:
        """Take one step of the optimiser; ``spent`` is how many seconds the batch took."""
        model, optimizer, scaler = self.session.model, self.session.optimizer, self.session.scaler
        with clock(self.position, self.sums, spent=spent):
            torch.manual_seed(model_seed(self.config.train.seed, self.position.epoch, self.position.step))
            optimizer.zero_grad(set_to_none=True)
            with autocast(model.amp_dtype, model.device):
                outputs = model.student(batch.image_BXRR)
            losses, scores = model.losses(gather_outputs(outputs, len(batch.label_B)), batch)
            self.guard.add(losses, self.position, self.batches)
            scaler.scale(losses["total"]).backward()
            average_gradients(p for group in optimizer.param_groups for p in group["params"])
            self.guard.skip_bad_steps()
            scaler.step(optimizer)
            scaler.update()
            self.sums.add(losses, scores, batch.label_B)
            self.position.step += 1

    @property
    def is_save_due(self) -> bool:
        """Whether the step just taken is one after which the run is saved; an epoch's end saves anyway."""
        step = self.position.step
        return step % self.config.train.checkpoint_steps == 0 and step < len(self.batches)

    def save(self) -> None:
        """Write the state within an epoch, or after its last step, before it is judged."""
        with clock(self.position, self.sums):
            self.guard.check(self.position, self.batches)
            self.guard.check_weights(self.position)
        self.position.sums = self.sums.state()
        self.folder.save(self.session, self.position)
