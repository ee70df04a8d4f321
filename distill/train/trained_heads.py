"""Heads trained on the features of a frozen trunk: one, and others whose mean with it is judged beside it.

Linear heads on the same features have a mean that is one of them (model soups, Wortsman et al., arXiv
2203.05482): several cost nothing where a student is used.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cache.runtime.errors import UserError
from distill.config import RunConfig
from distill.data.batch import Batch
from distill.judge.evaluate import Result, metrics_of
from distill.judge.model import judged
from distill.record.run_files import AVERAGED, MEAN_HEAD
from distill.record.run_log import LAST_EPOCHS
from distill.student.classifier import AllClasses
from distill.student.closed_form import moments_of
from distill.student.parts import head_of
from distill.student.stages import Standardise
from distill.student.trunk_features import set_linear, standard_of
from distill.train.ends import is_judged
from distill.train.epoch_sums import EpochSums
from distill.train.head import HeadData, outputs_of_split
from distill.train.mixup import drawn_mix
from distill.train.run import StudentRun
from distill.train.shared_batches import model_seed

# AdamW's, where the config's optimiser is another.
RATE, DECAY = 1e-3, 0.01
# Of unit rows: what is left of it once it has been taken off is rounding.
LEAST_MEAN = 0.05
# From a head's seed to the next one's: runs of seeds 0, 1, 2 ... have no head in common.
BETWEEN_SEEDS = 1_000_003


def train_heads(run: StudentRun, data: HeadData) -> list[dict[str, Any]]:
    """Train ``train.heads`` heads on features; return a line an epoch of the first, which the student keeps.

    The last line has the numbers of the means as well, each judged from features: of all heads, and of the
    first with the head that was there before.
    """
    student, averages = data.model.student, run.session.averages
    averages.begin()  # the head by ridge, where there is one, is what a mean with the start is of
    history = [*_trained(run, data, run.config)]
    heads = [_copied(head_of(student))]
    for nth in range(1, run.config.train.heads):
        seed = run.config.train.seed + nth * BETWEEN_SEEDS
        for _ in _trained(run, data, replace(run.config, train=replace(run.config.train, seed=seed))):
            pass
        heads.append(_copied(head_of(student)))
    if len(heads) > 1:
        mean = {name: torch.stack([head[name] for head in heads]).mean(dim=0) for name in heads[0]}
        head_of(student).load_state_dict(mean)
        averages.keep(MEAN_HEAD)
        head_of(student).load_state_dict(heads[0])
    results, outputs = run.results, run.outputs
    for name in (name for name in averages.names if name in (MEAN_HEAD, AVERAGED)):
        with averages.in_place(name):
            of_mean = metrics_of(judge_features(run, data))
        history[-1] |= {f"{name}_{metric}": value for metric, value in of_mean.items()}
    run.results, run.outputs = results, outputs
    return history


def _copied(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in module.state_dict().items()}


def judge_features(run: StudentRun, data: HeadData) -> dict[str, Result]:
    """Judge a student on every split, from features; its outputs stay with the run."""
    session, results = run.session, dict[str, Result]()
    among = AllClasses.competing(session.model.folder.classes)
    run.outputs = {name: outputs_of_split(data, session, name) for name in session.splits}
    for name, split in session.splits.items():
        results |= judged(session.model, [run.outputs[name]], split, among=among)
    return results


def batch_of_features(data: HeadData, at: NDArray[np.int64]) -> Batch:
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
            # A row of no length has no direction: without a mean the weights begin at random. Not with those
            # of the closed form, which are in the student by now: it is a worse start than none.
            if moments.target.norm() > LEAST_MEAN:
                last.weight.zero_()
            else:
                last.reset_parameters()
            last.bias.copy_(moments.target)
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


def _trained(run: StudentRun, data: HeadData, config: RunConfig) -> Iterator[dict[str, Any]]:
    """Train a head on features by AdamW over one cycle, as a config's seeds draw; yield a line an epoch.

    The student has it in the end. That of the run's own config is judged in the last epochs.
    """
    torch.manual_seed(config.train.seed)
    model, adamw = _OnFeatures(data, noise=config.student.feature_noise), config.optim.name == "adamw"
    epochs, rate = config.train.epochs, config.optim.lr if adamw else RATE
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=rate, weight_decay=config.optim.weight_decay if adamw else DECAY
    )
    steps = len(_batches(data, config, 0))
    cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=epochs * steps)
    for epoch in range(epochs):
        began, sums = time.perf_counter(), EpochSums.at(run.position, data.model)
        for step, chosen in enumerate(_batches(data, config, epoch)):
            torch.manual_seed(model_seed(config.train.seed, epoch, step))
            losses = _losses(data, model, config, chosen, at=(epoch, step), sums=sums)
            optimizer.zero_grad(set_to_none=True)
            losses["total"].backward()
            optimizer.step()
            cycle.step()
        line = {"epoch": epoch + 1, "lr": optimizer.param_groups[0]["lr"], **sums.metrics()}
        if not np.isfinite(line["loss_total"]):
            raise UserError(f"the loss of the head is not finite in epoch {epoch + 1}", fix="lower optim.lr.")
        if epoch >= epochs - LAST_EPOCHS:
            model.put(data.model.student)
            if config is run.config and is_judged(config, epoch):
                run.results = judge_features(run, data)
                line |= metrics_of(run.results)
        seconds = max(time.perf_counter() - began, 1e-9)
        yield {**line, "images_per_s": sums.images / seconds}


def _batches(data: HeadData, config: RunConfig, epoch: int) -> list[NDArray[np.int64]]:
    """Return the images of an epoch's batches, of those that could be read."""
    drawn = data.data.epoch(
        epoch,
        batch_size=config.train.batch_size,
        repeats=config.data.repeat_epochs,
        seed=config.stream_seed,
    )
    return [chosen[data.train.readable[chosen]] for chosen in drawn]


def _losses(
    data: HeadData,
    model: _OnFeatures,
    config: RunConfig,
    chosen: NDArray[np.int64],
    *,
    at: tuple[int, int],
    sums: EpochSums,
) -> dict[str, Tensor]:
    """Return a step's losses, mixed features' where mixup is on, and add them up."""
    epoch, step = at
    mix = drawn_mix(config, epoch, step, len(chosen), data.model.device)
    batch = batch_of_features(data, chosen)
    features = batch.image_BXRR
    if mix is not None:
        batch, features = replace(batch, mix=mix), torch.lerp(features[mix.other_B], features, mix.share)
    losses, scores = data.model.losses(model.train()(features), batch)
    sums.add(losses, scores, batch.label_B)
    return losses
