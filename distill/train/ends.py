"""The end of an epoch, where a student is judged, and the end of a run, where its summary is written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from distill.judge.evaluate import Result, metrics_of
from distill.judge.model import judged, outputs_of
from distill.record.run_log import LAST_EPOCHS
from distill.student.classifier import AllClasses
from distill.train.epoch_sums import clock
from distill.train.outputs_of_run import outputs_of_run
from distill.train.run import StudentRun
from distill.train.session import Session
from distill.train.stopping import Stop
from distill.train.summary import summarize


def end_epoch(run: StudentRun, stop: Stop) -> str:
    """Judge what was saved after an epoch's last step; return a line that says how it was.

    Raises
    ------
    LeftAtOnce
        After a signal, with the epoch not judged: a resumed run begins with that.
    """
    session, position, speed = run.session, run.position, run.sums.images_per_s
    late = position.epoch >= session.config.train.epochs - LAST_EPOCHS
    with clock(position, run.sums), stop.at_once():
        run.results = judge_splits(session, late=late) if run.folder.writes else {}
    line = {"epoch": position.epoch, "lr": run.rate, **run.sums.metrics(), **metrics_of(run.results)}
    position.history.append({**line, "images_per_s": speed})
    position.epoch, position.step, position.sums = position.epoch + 1, 0, {}
    run.folder.end_epoch(session, position)
    return epoch_line(session, position.history[-1])


def finish(run: StudentRun, command: Sequence[str], stop: Stop, **more: Any) -> dict[str, Any]:
    """Write outputs, curves and the summary of a trained student, and return the summary.

    Raises
    ------
    LeftAtOnce
        After a signal: a resumed run does this alone.
    """
    if not run.folder.writes:
        return {}
    session, position = run.session, run.position
    with stop.at_once():
        # A run that had ended before its summary was written has no results yet.
        results = run.results or judge_splits(session, late=True)
        trained = trained_outputs(session)
        summary = summarize(session, position, results, trained, command=command, more=more)
        outputs = outputs_of_run(session, trained)
    run.folder.end(session, position, summary, outputs)
    return summary


def judge_splits(session: Session, *, late: bool) -> dict[str, Result]:
    """Judge OOD and id_val every epoch, ID in the ``late``, last ones, as the original code reports them.

    There all classes of the data compete as well: for CoCoOp, whose texts are of each image, that is twice
    the work.
    """
    model, classes = session.model, AllClasses.of(session.model.folder.splits)
    among = classes if late and classes.ood_classes else None
    results: dict[str, Result] = {}
    for split in session.splits.values():
        if late or split.name != "id_test":
            results |= judged(model, outputs_of(model, split), split, among=among)
    return results


def trained_outputs(session: Session) -> dict[str, tuple[Tensor, Tensor]]:
    """Return a trained student's outputs and the labels of every split, on the CPU."""
    outputs = {}
    for name, split in session.splits.items():
        rows, labels = zip(*outputs_of(session.model, split), strict=True)
        outputs[name] = torch.cat(rows).cpu(), torch.cat(labels)
    return outputs


def epoch_line(session: Session, line: Mapping[str, Any]) -> str:
    """Return one line for people about an epoch."""
    curves = session.model.curves
    metrics = "  ".join(f"{label} {line[name]:.1f}%" for label, name in curves if name in line)
    return (
        f"epoch {line['epoch'] + 1}/{session.config.train.epochs}  loss {line['loss_total']:.3f}  {metrics}"
        f"  {line['images_per_s']:,.0f} images/s"
    )
