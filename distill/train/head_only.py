"""A run that begins with a head by ridge, or is nothing but a head: nothing is decoded for a second one."""

from __future__ import annotations

import time
from typing import Any

import torch

from cache.runtime.distributed import current_ranks
from cache.runtime.errors import UserError
from cache.runtime.progress import Progress
from distill.judge.evaluate import Result, metrics_of
from distill.record.run_files import MEAN_HEAD
from distill.student.trunk_features import head_outputs
from distill.train.epoch_sums import EpochSums
from distill.train.feature_files import FeatureFiles
from distill.train.head import HeadData, by_ridge, standardise
from distill.train.run import StudentRun
from distill.train.stopping import Stop
from distill.train.trained_heads import batch_of_features, judge_features, train_heads


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
    if run.config.train.head_only != "trained":
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
        how = f"lambda {closed_form['lambda']:g}, {closed_form['chosen_by']}"
        parts.append(_told(f"closed form ({how})", _accuracies(closed_form)))
    if len(history) > 1:
        parts.append(_told("trained head", _accuracies(history[-1])))
        if mean := _accuracies(history[-1], of=f"{MEAN_HEAD}_"):
            parts.append(f"mean of heads: {mean}")
    return "; ".join(parts)


def _told(what: str, accuracies: str) -> str:
    """Return both, or where nothing is judged the first."""
    return f"{what}: {accuracies}" if accuracies else what


def _accuracies(numbers: dict[str, Any], *, of: str = "") -> str:
    names = ("id_val", "class_val", "pool_val", "id_test", "ood_test", "ood_query")
    told = [f"{n} {numbers[key]:.1f}%" for n in names if (key := f"{of}{n}_accuracy") in numbers]
    told += [f"{n} cosine {numbers[key]:.3f}" for n in names if (key := f"{of}{n}_cosine") in numbers]
    return "  ".join(told)


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
        results = judge_features(run, data)
        closed_form |= metrics_of(results)
        run.results = results if config.train.head_only == "closed-form" else {}
    if config.train.head_only == "closed-form":
        history = [_line(run, data, epoch=0, results=run.results)]
    if config.train.head_only == "trained":
        history = train_heads(run, data)
    if config.train.head_only == "off":
        run.outputs = {}
    several = current_ranks().world > 1
    student = {name: value.cpu() for name, value in session.model.student.state_dict().items()}
    return {"closed_form": closed_form, "history": history, "student": student if several else {}}


@torch.no_grad()
def _line(run: StudentRun, data: HeadData, *, epoch: int, results: dict[str, Result]) -> dict[str, Any]:
    """Return the history's line of a head: its losses on the training images, its metrics on the splits."""
    began, sums = time.perf_counter(), EpochSums.at(run.position, data.model)
    data.model.student.eval()
    at = data.rows.at[data.data.labels[data.rows.at] >= 0]
    for start in range(0, len(at), run.config.train.batch_size):
        batch = batch_of_features(data, at[start : start + run.config.train.batch_size])
        losses, scores = data.model.losses(head_outputs(data.model.student, batch.image_BXRR), batch)
        sums.add(losses, scores, batch.label_B)
    speed = len(at) / max(time.perf_counter() - began, 1e-9)
    return {"epoch": epoch + 1, "lr": 0.0, **sums.metrics(), **metrics_of(results), "images_per_s": speed}
