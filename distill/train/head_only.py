"""A run that begins with a head by ridge, or is nothing but a head: nothing is decoded for a second one."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.runtime.distributed import current_ranks
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from distill.data.batch import Batch
from distill.judge.evaluate import Result, metrics_of
from distill.judge.model import judged
from distill.record.run_log import LAST_EPOCHS
from distill.student.classifier import AllClasses
from distill.student.closed_form import moments_of
from distill.student.parts import head_of
from distill.student.stages import Standardise
from distill.student.trunk_features import head_outputs, set_linear, standard_of
from distill.train.epoch_sums import EpochSums
from distill.train.feature_files import FeatureFiles
from distill.train.head import HeadData, by_ridge, outputs_of_split, standardise
from distill.train.run import StudentRun
from distill.train.shared_batches import model_seed
from distill.train.stopping import Stop

# AdamW's, where the config's optimiser is another.
RATE, DECAY = 1e-3, 0.01
# Of unit rows: what is left of it once it has been taken off is rounding.
LEAST_MEAN = 0.05


def wants_head(run: StudentRun) -> bool:
    """Say whether a run begins with the features of its trunk: for its head, or to standardise them."""
    config, position = run.config, run.position
    if position.epoch or position.step or position.closed_form:
        return False
    of_its_own = config.student.head != "linear" and not config.fewshot.start
    return of_its_own or config.train.head_only != "off" or config.student.head_start != "random"


def begin_head(run: StudentRun, progress: Progress, stop: Stop) -> str:
    """Make a new run's head; with ``train.head_only`` it is trained then. Return a line about it, or ''.

    LeftAtOnce after a signal: nothing is made but the features that are kept.
    """
    ranks, began = current_ranks(), time.perf_counter()
    # A stop within the features is gone on from this: it names the cache, too.
    run.folder.save(run.session, run.position)

    def made() -> UserError | dict[str, Any]:
        try:
            with stop.at_once():
                return _make(run, progress)
        except UserError as error:
            return error

    told = ranks.from_first(made)
    if isinstance(told, UserError):
        raise told
    if ranks.world > 1:
        run.session.model.student.load_state_dict(told["student"])
    run.session.averages.begin()  # the head that was there before is no start
    run.position.closed_form, run.position.history = told["closed_form"], told["history"]
    run.position.seconds += time.perf_counter() - began
    if run.config.train.head_only != "off":
        run.position.epoch = run.config.train.epochs
        run.folder.end_epoch(run.session, run.position)
    return line_of(told["closed_form"], told["history"])


def line_of(closed_form: dict[str, Any], history: list[dict[str, Any]]) -> str:
    """Return one line for people about a closed form, and a trained head."""
    parts = []
    if closed_form:
        parts.append(f"closed form (lambda {closed_form['lambda']:g}, {closed_form['chosen_by']}): ")
        parts[-1] += _accuracies(closed_form)
    if len(history) > 1:
        parts.append(f"trained head: {_accuracies(history[-1])}")
    return "; ".join(parts)


def _accuracies(numbers: dict[str, Any]) -> str:
    names = ("id_val", "class_val", "pool_val", "id_test", "ood_test", "ood_query")
    return "  ".join(f"{n} {numbers[key]:.1f}%" for n in names if (key := f"{n}_accuracy") in numbers)


def _make(run: StudentRun, progress: Progress) -> dict[str, Any]:
    """Make the head in the first process; return what the others need, and what is told."""
    config, session = run.config, run.session
    data = HeadData.of(session, FeatureFiles(session.model, run.out, progress=progress))
    rows = standardise(data)
    closed_form: dict[str, Any] = {}
    history: list[dict[str, Any]] = []
    if config.student.head != "mlp" and (
        config.train.head_only != "off" or config.student.head_start == "closed-form"
    ):
        closed_form = by_ridge(data, rows, session)
        results = _judged(run, data)
        closed_form |= metrics_of(results)
        run.results = results if config.train.head_only == "closed-form" else {}
    if config.train.head_only == "closed-form":
        history = [_line(run, data, epoch=0, results=run.results)]
    if config.train.head_only == "trained":
        history = _train(run, data)
    if config.train.head_only == "off":
        run.outputs = {}
    several = current_ranks().world > 1
    student = {name: value.cpu() for name, value in session.model.student.state_dict().items()}
    return {"closed_form": closed_form, "history": history, "student": student if several else {}}


def _judged(run: StudentRun, data: HeadData) -> dict[str, Result]:
    """Judge a student on every split, from features; its outputs stay with the run."""
    session, results = run.session, dict[str, Result]()
    among = AllClasses.competing(session.model.folder.classes)
    run.outputs = {name: outputs_of_split(data, session, name) for name in session.splits}
    for name, split in session.splits.items():
        results |= judged(session.model, [run.outputs[name]], split, among=among)
    return results


@torch.no_grad()
def _line(run: StudentRun, data: HeadData, *, epoch: int, results: dict[str, Result]) -> dict[str, Any]:
    """Return the history's line of a head: its losses on the training images, its metrics on the splits."""
    began, sums = time.perf_counter(), EpochSums.at(run.position, data.model)
    data.model.student.eval()
    at = data.rows.at[data.data.labels[data.rows.at] >= 0]
    for start in range(0, len(at), run.config.train.batch_size):
        batch = _batch(data, at[start : start + run.config.train.batch_size])
        losses, scores = data.model.losses(head_outputs(data.model.student, batch.image_BXRR), batch)
        sums.add(losses, scores, batch.label_B)
    speed = len(at) / max(time.perf_counter() - began, 1e-9)
    return {"epoch": epoch, "lr": 0.0, **sums.metrics(), **metrics_of(results), "images_per_s": speed}


def _batch(data: HeadData, at: NDArray[np.int64]) -> Batch:
    """Return the batch of some images, features in place of pixels."""
    return data.data.batch(at, data.train.of(at).to(data.model.device))


class _OnFeatures(nn.Module):
    """What is trained: a standardisation with noise, and a head, from zero where that has a direction."""

    def __init__(self, data: HeadData, *, noise: float) -> None:
        super().__init__()
        student, rows = data.model.student, data.rows
        moments = moments_of(rows)
        own = standard_of(student)
        self.standard = own or Standardise([rows.features], noise=noise)
        if own is None:
            self.standard.fit(moments.mean, moments.deviation)
        outputs = len(moments.target)
        self.head: nn.Module = head_of(student) if own else nn.Linear(rows.features, outputs)
        last: Any = self.head[-1] if isinstance(self.head, nn.Sequential) else self.head
        with torch.no_grad():
            last.bias.copy_(moments.target)
            # A row of no length has no direction: without a mean to begin with the weights are as they are.
            if moments.target.norm() > LEAST_MEAN:
                last.weight.zero_()
        self.to(data.model.device)

    def forward(self, features: Tensor) -> Tensor:
        """Return outputs [B, D]."""
        rows: Tensor = self.head(self.standard(features))
        return rows

    def put(self, student: nn.Module) -> None:
        """Put the head into a student whose own takes features as they are."""
        if standard_of(student) is None:
            assert isinstance(self.head, nn.Linear)
            set_linear(student, *self.standard.folded_into(self.head.weight, self.head.bias))


def _train(run: StudentRun, data: HeadData) -> list[dict[str, Any]]:
    """Train the head on features, from zero, by AdamW over one cycle; return a line an epoch."""
    config = run.config
    model, adamw = _OnFeatures(data, noise=config.student.feature_noise), config.optim.name == "adamw"
    epochs, readable = config.train.epochs, data.train.readable
    steps = len(run.session.batches_of(0))
    rate = config.optim.lr if adamw else RATE
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=config.optim.weight_decay if adamw else DECAY
    )
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=epochs * steps)
    history = []
    for epoch in range(epochs):
        began, sums = time.perf_counter(), EpochSums.at(run.position, data.model)
        batches: Any = run.session.batches_of(epoch)
        for step, chosen in enumerate(batches):
            torch.manual_seed(model_seed(config.train.seed, epoch, step))
            batch = _batch(data, chosen[readable[chosen]])
            losses, scores = data.model.losses(model.train()(batch.image_BXRR), batch)
            optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            optimizer.step()
            cycle.step()
            sums.add(losses, scores, batch.label_B)
        line = {"epoch": epoch, "lr": optimizer.param_groups[0]["lr"], **sums.metrics()}
        if not np.isfinite(line["loss_total"]):
            raise UserError(f"the loss of the head is not finite in epoch {epoch}", fix="lower optim.lr.")
        if epoch >= epochs - LAST_EPOCHS:
            model.put(data.model.student)
            run.results = _judged(run, data)
            line |= metrics_of(run.results)
        seconds = max(time.perf_counter() - began, 1e-9)
        history.append({**line, "images_per_s": sums.images / seconds})
    return history
