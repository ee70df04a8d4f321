"""The calibration of a run's student: its outputs on every split, beside all classes of the data."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor

from cache.runtime.errors import UserError
from cache.runtime.json_values import value_of
from distill.data.stream import EvalSplit
from distill.headline import SET_ASIDE
from distill.judge.calibration import Calibration, Compared, calibrated
from distill.judge.evaluate import Result
from distill.judge.model import outputs_of, whole_outputs
from distill.judge.open_run import Opening, open_trained
from distill.judge.trained_run import TrainedRun
from distill.record.run_files import LAST, SUMMARY
from distill.student.classifier import AllClasses
from distill.student.heads import classifiers_for
from distill.student.photo_model import PhotoModel

# Of a split: their probabilities among a thousand classes take 80 MB, in float64.
MOST_IMAGES = 10_000


def judge_run(
    run: Path, *, splits: Sequence[str] = (), **opening: Unpack[Opening]
) -> tuple[dict[str, Result], Calibration | None]:
    """Judge a run as :func:`distill.judge.open_run.evaluate_run` does, and its student's calibration.

    That is fitted on id_val, or where the run set none aside on id_test, whichever splits are asked for: by
    the run, whose summary has it, or where it is judged otherwise, here. It is None of episodes, and of a run
    that has neither.
    """
    trained = open_trained(run, **opening)
    model, asked = trained.model, trained.judged(splits)
    results: dict[str, Result] = {}
    outputs = {}
    for split in asked:
        batches = list(outputs_of(model, split, trained.progress))
        results |= trained.results(split, batches)
        if isinstance(model, PhotoModel):
            rows, labels = zip(*batches, strict=True)
            outputs[split.name] = torch.cat([part.cpu() for part in rows]), torch.cat(labels)
    if not isinstance(model, PhotoModel):
        return results, None
    if (known := _in_summary(trained, [split.name for split in asked], opening)) is not None:
        return results, known
    for name in ("id_val", "id_test"):
        with suppress(UserError):  # the run set none aside, or its data has none
            more = [] if name in outputs else trained.wanted([name])
            outputs |= {split.name: whole_outputs(model, split, trained.progress) for split in more}
            return results, calibration_of_run(model, [*asked, *more], outputs)
    return results, None


def _in_summary(trained: TrainedRun, splits: Sequence[str], opening: Opening) -> Calibration | None:
    """Return what the run's summary says, if that is of this checkpoint and of these splits as they are."""
    path = trained.checkpoint.with_name(SUMMARY)
    if trained.checkpoint.name != LAST or not path.is_file():
        return None
    if any(opening.get(name) for name in ("data_dir", "cache_dir", "text")):
        return None
    asked, ends = {name: opening.get(name) for name in ("eval_size", "eval_crop")}, trained.ends
    summary = json.loads(path.read_text(encoding="utf-8"))
    if summary["epochs"] != ends["epochs"] or any(v not in (None, ends[n]) for n, v in asked.items()):
        return None
    found = summary.get("calibration")
    known = value_of(Calibration, found, name="calibration") if found else None
    tests = [name for name in splits if name not in SET_ASIDE]
    if known is None or not {*tests} <= known.among_all.keys() or any(map(trained.other_data, tests)):
        return None
    return known


@torch.no_grad()
def calibration_of_run(
    model: PhotoModel, splits: Iterable[EvalSplit], outputs: Mapping[str, tuple[Tensor, Tensor]]
) -> Calibration | None:
    """Return the calibration of a student's first head; None without one, or without images to fit it on.

    ``outputs`` are (outputs [N, ...], labels [N]) of every split's readable images, of which ten thousand at
    most count.
    """
    splits = list(splits)
    # Those of a pool alone are no folder's.
    among = AllClasses.of({**model.folder.classes, **{split.name: split.class_names for split in splits}})
    if (
        not splits
        or not model.heads
        or not model.heads[0].has_texts
        or not {*model.heads[0].cache.text_bank(model.config.text).class_folders}.issuperset(among.names)
    ):
        return None
    temperature = model.config.loss.temperature
    _, columns, classifier = classifiers_for(
        model.config, model.heads, model.folder.class_names, among.names
    )[0]
    compared = {}
    for split in splits:
        rows, labels = outputs[split.name]
        at = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_IMAGES)).astype(np.int64))
        rows, labels = rows[at], labels[at]
        batches = rows[:, columns].split(model.config.train.eval_batch_size)
        logits = torch.cat([classifier(batch.to(model.device)).float().cpu() for batch in batches])
        own = among.columns(split.class_names)
        compared[split.name] = Compared(
            similarities=(logits * temperature).numpy(), labels=np.array(own)[labels.numpy()], own=tuple(own)
        )
    return calibrated(compared, trained_with=temperature)
