"""The calibration of a run's student: its outputs on every split, beside all classes of the data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from distill.data.stream import EvalSplit
from distill.judge.calibration import Calibration, Compared, calibrated
from distill.student.classifier import AllClasses
from distill.student.heads import classifiers_for
from distill.student.photo_model import PhotoModel


@torch.no_grad()
def calibration_of_run(
    model: PhotoModel, splits: Iterable[EvalSplit], outputs: Mapping[str, tuple[Tensor, Tensor]]
) -> Calibration | None:
    """Return the calibration of a student's first head; None without one, or without images to fit it on.

    ``outputs`` are (outputs [N, ...], labels [N]) of every split's readable images.
    """
    among = AllClasses.of(model.folder.classes)
    if not model.heads or not {*model.heads[0].cache.text_bank(model.config.text).class_folders}.issuperset(
        among.names
    ):
        return None
    temperature = model.config.loss.temperature
    _, columns, classifier = classifiers_for(
        model.config, model.heads, model.folder.class_names, among.names
    )[0]
    compared = {}
    for split in splits:
        rows, labels = outputs[split.name]
        batches = rows[:, columns].split(model.config.train.eval_batch_size)
        logits = torch.cat([classifier(batch.to(model.device)).float().cpu() for batch in batches])
        own = among.columns(split.class_names)
        compared[split.name] = Compared(
            similarities=(logits * temperature).numpy(), labels=np.array(own)[labels.numpy()], own=tuple(own)
        )
    return calibrated(compared, trained_with=temperature)
