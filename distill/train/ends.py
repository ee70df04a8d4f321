"""The end of an epoch, where a student is judged, and the end of a run, where its summary is written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import torch

from distill.config import RunConfig
from distill.judge.calibration_of_run import calibration_of_run
from distill.judge.evaluate import Result, SplitResult, metrics_of
from distill.judge.model import fingerprint, judged, outputs_of, result_names, whole_outputs
from distill.judge.space_of_split import space_of_split, teacher_has_rows
from distill.record.run_files import AVERAGED, EMA, MEANS
from distill.record.run_log import BOTH_KINDS, LAST_EPOCHS, hardware, last_mean, peak_memory, versions
from distill.robotics.metrics import EpisodeResult
from distill.robotics.model import EpisodeModel
from distill.student.build import made_of
from distill.student.classifier import AllClasses
from distill.train.chosen_eval import choose_eval
from distill.train.epoch_sums import clock
from distill.train.outputs_of_run import Outputs, outputs_of_run, teacher_results
from distill.train.resumed_settings import precision_name
from distill.train.run import StudentRun
from distill.train.schedule import learning_rate
from distill.train.session import Position, Session
from distill.train.stopping import Stop


def end_epoch(run: StudentRun, stop: Stop) -> str:
    """Judge what was saved after an epoch's last step, if it is one to be judged; return a line about it.

    LeftAtOnce after a signal, with the epoch not judged: a resumed run begins with that.
    """
    session, position, speed = run.session, run.position, run.sums.images_per_s
    late = position.epoch >= session.config.train.epochs - LAST_EPOCHS
    judges = run.folder.writes and is_judged(session.config, position.epoch)
    with clock(position, run.sums), stop.at_once():
        run.results = judge_splits(session, late=late) if judges else {}
        average = judge_average(session, EMA, late=late) if judges else {}
    rate, pool = learning_rate(session.config.optim, run.moment), session.pool
    of_pool = {"pool_images": pool.images} if pool is not None else {}
    line = {"epoch": position.epoch + 1, "lr": rate, **run.sums.metrics(), **of_pool}
    line |= {**metrics_of(run.results), **average}
    position.history.append({**line, "images_per_s": speed})
    position.epoch, position.step, position.sums, position.chosen_eval = position.epoch + 1, 0, {}, {}
    run.folder.end_epoch(session, position)
    return epoch_line(session, position.history[-1])


def is_judged(config: RunConfig, epoch: int) -> bool:
    """Say whether a student is judged after an epoch, counted from 0."""
    done, every = epoch + 1, config.eval.every
    return done == config.train.epochs or (every > 0 and done % every == 0)


def finish(run: StudentRun, stop: Stop, **more: Any) -> dict[str, Any]:
    """Write outputs, curves and the summary of a trained student, and return the summary.

    LeftAtOnce after a signal: a resumed run does this alone.
    """
    if not run.folder.writes:
        return {}
    session, position = run.session, run.position
    with stop.at_once():
        # A run that had ended before its summary was written has no results yet.
        results = run.results or judge_splits(session, late=True)
        if session.config.train.head_only == "off":  # of a head alone it is judged from features
            more |= judge_average(session, AVERAGED, late=True)
        if session.config.eval.choose:
            position.chosen_eval = choose_eval(session)
            run.folder.save(session, position)
        trained = run.outputs or {
            n: whole_outputs(session.model, split) for n, split in session.splits.items()
        }
        summary = summarize(session, position, results, trained, command=run.command, more=more)
        outputs = outputs_of_run(session, trained)
    run.folder.end(session, position, summary, outputs)
    return summary


def judge_splits(session: Session, *, late: bool) -> dict[str, Result]:
    """Judge OOD and what is set aside every epoch, ID in the ``late``, last ones, as the original code does.

    There all classes of the data compete as well: for CoCoOp, whose texts are of each image, that is twice
    the work. Where there is nothing else ID is judged every epoch, and a split of one class always among all.
    """
    model, splits = session.model, session.splits
    alone = any(len(split.class_names) == 1 for split in splits.values())
    among = AllClasses.competing(model.folder.classes) if late or alone else None
    results: dict[str, Result] = {}
    for name in judged_after(splits, late=late):
        results |= judged(model, outputs_of(model, splits[name]), splits[name], among=among)
    return results


def judged_after(splits: Iterable[str], *, late: bool) -> list[str]:
    """Return which of a run's splits are judged after an epoch: all where it is a ``late`` one."""
    names = [*splits]
    return names if late else [name for name in names if name != "id_test"] or names


def judge_average(session: Session, name: str, *, late: bool) -> dict[str, float]:
    """Return the numbers of a mean of the weights, whose names begin with its own; none without it."""
    if name not in session.averages.names:
        return {}
    with session.averages.in_place(name):
        results = judge_splits(session, late=late)
    return {f"{name}_{metric}": value for metric, value in metrics_of(results).items()}


def epoch_line(session: Session, line: Mapping[str, Any]) -> str:
    """Return one line for people about an epoch."""
    curves = session.model.curves
    told = [
        f"{label} {line[name]:.3f}" if name.endswith("_cosine") else f"{label} {line[name]:.1f}%"
        for before in ("", f"{EMA}_")
        for label, name in ((f"{before.replace('_', ' ')}{label}", before + name) for label, name in curves)
        if name in line
    ]
    return "  ".join(
        [
            f"epoch {line['epoch']}/{session.config.train.epochs}",
            f"loss {line['loss_total']:.3f}",
            *told,
            f"{line['images_per_s']:,.0f} {session.model.unit}/s",
        ]
    )


def summarize(
    session: Session,
    position: Position,
    results: Mapping[str, Result],
    outputs: Outputs,
    *,
    command: Sequence[str],
    more: Mapping[str, Any],
) -> dict[str, Any]:
    """Return a run's summary: the headline, and everything needed to trust and repeat it."""
    model, data, history = session.model, session.data, position.history
    means = {name: last_mean(history, name) for name in _judged_metrics(session, history)}
    splits, pool = session.splits.items(), session.pool
    return {
        "status": "finished",
        "epochs": len(history),
        "headline": f"{_mean_of(session.config, len(history))}, {model.headline}",
        **{name: value for name, value in means.items() if value is not None},
        "classes": {"train": len(model.class_names)} | {name: len(s.class_names) for name, s in splits},
        "images": {"train": data.count, **({"pool": pool.images} if pool is not None else {})}
        | {name: len(s.pixels.samples) - len(s.pixels.unreadable) for name, s in splits},
        **({"pool": pool.to_json()} if pool is not None else {}),
        "views": session.replayed.words,
        "training_images_without_teacher_row": data.left_out,
        "unreadable_images": {name: s.pixels.unreadable for name, s in splits},
        "student": session.config.student.arch,
        "student_input": made_of(model.student).normalisation.to_json(),
        "first_weights": made_of(model.student).to_json()["first_weights"],
        "student_parameters": sum(p.numel() for p in model.student.parameters()),
        "cache": str(model.cache.path),
        "cache_fingerprint": fingerprint(model),
        "data": session.identity.to_json(),
        "teacher": model.cache.teacher,
        "decoder": session.decoder,
        "precision": precision_name(model.amp_dtype),
        "seconds": position.seconds,
        "images_per_s": last_mean(history, "images_per_s"),
        "peak_memory_bytes": peak_memory(model.device),
        "versions": versions(),
        "hardware": hardware(model.device),
        # Not the path of a script: as it is written.
        "command": ["distill", *command[1:]],
        **more,
        **({"closed_form": position.closed_form} if position.closed_form else {}),
        **({"chosen_eval": position.chosen_eval} if position.chosen_eval else {}),
        "calibration": _calibration(session, outputs),
        "space": _space(session, outputs),
        **_by_class(session, history, results),
    }


def _mean_of(config: RunConfig, epochs: int) -> str:
    """Return what :func:`last_mean` is of after so many epochs, in words."""
    if config.train.head_only == "closed-form":
        return "closed form"
    last = range(epochs)[-LAST_EPOCHS:]
    judged_epochs = sum(is_judged(config, epoch) for epoch in last)
    if judged_epochs == len(last):
        return f"mean of the last {len(last)} epochs"
    return (
        "the last epoch" if judged_epochs == 1 else f"mean of {judged_epochs} of the last {len(last)} epochs"
    )


def _judged_metrics(session: Session, history: Sequence[dict[str, Any]]) -> list[str]:
    """Return the metrics of splits in their order, those of ID and OOD together, then the average's."""
    names = list(dict.fromkeys(name for line in history for name in line))
    judged = ["train", *result_names(session.model, session.splits)]
    of_splits = [name for split in judged for name in names if name.startswith(f"{split}_")]
    of_means = tuple(f"{mean}_" for mean in MEANS)
    return of_splits + [name for name in names if name.startswith((*BOTH_KINDS, *of_means))]


def _space(session: Session, outputs: Outputs) -> dict[str, dict[str, float]]:
    """Return how close the student's embeddings are to the teacher's, by split that has its rows."""
    heads = session.model.heads
    space: dict[str, dict[str, float]] = {}
    for split in session.splits.values() if heads else ():
        if teacher_has_rows(heads, split):
            space |= space_of_split(heads, [outputs[split.name]], split, session.config)
    return space


def _calibration(session: Session, outputs: Outputs) -> dict[str, Any] | None:
    """Return how far a student's probabilities can be believed; None of episodes, and without images."""
    if isinstance(session.model, EpisodeModel):
        return None
    calibration = calibration_of_run(session.model, session.splits.values(), outputs)
    return asdict(calibration) if calibration is not None else None


def _by_class(
    session: Session, history: Sequence[dict[str, Any]], results: Mapping[str, Result]
) -> dict[str, Any]:
    """Return every class's accuracy, or object's average precision, and the teacher's where it has rows."""
    teacher = teacher_results(session)
    common = {
        "teacher_images": {name: result.images for name, result in teacher.items()},
        "teacher_metrics": metrics_of(teacher),
    }
    if isinstance(session.model, EpisodeModel):
        objects = {n: r.per_object for n, r in results.items() if isinstance(r, EpisodeResult)}
        theirs = {n: r.per_object for n, r in teacher.items() if isinstance(r, EpisodeResult)}
        return {
            "score_bias": float(torch.tanh(session.model.student.score_bias.detach())),
            "per_object_average_precision": objects,
            "teacher_per_object_average_precision": theirs,
            **common,
        }
    ood = [line["ood_test_accuracy"] for line in history if "ood_test_accuracy" in line]
    best = {"ood_test_accuracy_best_epoch": max(ood)} if ood else {}
    photos = {name: result for name, result in results.items() if isinstance(result, SplitResult)}
    by_teacher = {name: result for name, result in teacher.items() if isinstance(result, SplitResult)}
    return {
        **best,
        "per_class_accuracy": {name: result.per_class for name, result in photos.items()},
        "teacher_accuracy": {name: result.headline for name, result in by_teacher.items()},
        "teacher_per_class_accuracy": {name: result.per_class for name, result in by_teacher.items()},
        **common,
    }
