"""One student in training, and a step of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from distill.data.batch import Batch
from distill.judge.evaluate import Result
from distill.precision import autocast
from distill.record.boards import TENSORBOARD_ALONE, Boards
from distill.record.run_files import LAST
from distill.train.distributed import average_gradients, gather_outputs
from distill.train.epoch_sums import EpochSums, clock
from distill.train.finite_guard import FiniteGuard
from distill.train.freezing import Freezing
from distill.train.run_folder import RunFolder
from distill.train.schedule import Moment, set_rate
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
        boards: Boards = TENSORBOARD_ALONE,
        command: Sequence[str] = (),
    ) -> None:
        """Put a session's student at the start, or with ``resume_run`` where its checkpoint left it.

        ``boards`` are written to beside TensorBoard; ``command`` is what the summary says that made the run.
        """
        self.session, self.config, self.out, self.command = session, session.config, out, command
        self.folder = RunFolder(out)
        try:
            going_on = resume_run and (out / LAST).exists()
            self.position = resume(out / LAST, session) if going_on else Position()
            self.folder.begin(self.config, self.position, boards)
        except BaseException:
            self.folder.close()
            raise
        self.guard = FiniteGuard(session, out)
        self.freezing = Freezing.of(session.model.student, self.config.student)
        self.parameters = [own for group in session.optimizer.param_groups for own in group["params"]]
        for parameter, gradient in zip(self.parameters, self.position.gradients, strict=False):
            parameter.grad = gradient
        self.batches: Sequence[Any] = ()
        self.results: dict[str, Result] = {}
        # Of a head on the features of its trunk, which then decodes nothing anew.
        self.outputs: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def is_trained(self) -> bool:
        """Whether no epoch is left."""
        return self.position.epoch >= self.config.train.epochs

    def begin_epoch(self) -> None:
        """Draw the epoch's batches and go on with its sums, if a checkpoint kept them."""
        self.batches = self.session.batches_of(self.position.epoch)
        self.sums = EpochSums.at(self.position, self.session.model)
        self.session.model.student.train()
        self.freezing.begin_epoch(self.position.epoch)

    @property
    def moment(self) -> Moment:
        """Which of the run's steps is next; after an epoch's last, that one."""
        steps = len(self.batches)
        return Moment(
            epoch=self.position.epoch,
            epochs=self.config.train.epochs,
            step=min(self.position.step, steps - 1),
            steps=steps,
        )

    @property
    def window(self) -> range:
        """The steps around the next one whose gradients one step of the optimiser takes."""
        step, many = self.position.step, self.config.optim.accumulate
        first = step - step % many
        return range(first, max(step + 1, min(first + many, len(self.batches))))

    def step(self, batch: Batch, *, spent: float = 0.0) -> None:
        """Take one step; ``spent`` is how many seconds the batch took."""
        model, optimizer, window = self.session.model, self.session.optimizer, self.window
        with clock(self.position, self.sums, spent=spent):
            torch.manual_seed(model_seed(self.config.train.seed, self.position.epoch, self.position.step))
            if self.position.step == window.start:
                optimizer.zero_grad(set_to_none=True)
            with autocast(model.amp_dtype, model.device):
                outputs = model.student(batch.image_BXRR)
            losses, scores = model.losses(gather_outputs(outputs, len(batch.label_B)), batch)
            self.guard.add(losses, self.position, self.batches)
            loss = losses["total"]
            if len(window) > 1:  # by images, as the mean of one large batch would count them
                loss = loss * (len(batch.label_B) / sum(len(self.batches[step]) for step in window))
            self.session.scaler.scale(loss).backward()
            # At every batch of a window: what a stop within it saves is of all processes.
            average_gradients(self.parameters)
            if self.position.step + 1 == window.stop:
                self._move()
            self.sums.add(losses, scores, batch.label_B)
            self.position.step += 1

    def _move(self) -> None:
        """Take a step of the optimiser, at the rate of this moment."""
        optimizer, scaler, optim = self.session.optimizer, self.session.scaler, self.config.optim
        self.guard.skip_bad_steps()
        set_rate(optimizer, optim, self.moment)
        scaler.unscale_(optimizer)
        norm = get_total_norm([own.grad for own in self.parameters if own.grad is not None])
        if optim.clip_norm:
            clip_grads_with_norm_(self.parameters, optim.clip_norm, norm)
        self.sums.add_gradient(norm)
        scaler.step(optimizer)
        scaler.update()
        self.session.averages.update()

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
        halfway = self.position.step < len(self.batches) and self.position.step > self.window.start
        self.position.gradients = [own.grad for own in self.parameters] if halfway else []
        self.folder.save(self.session, self.position)
