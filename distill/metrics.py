"""How well: macro accuracy (the mean of every class's own accuracy), in percent."""

from __future__ import annotations

import torch
from torch import Tensor

# Before torchmetrics, which imports torchvision itself.
import cache.vision  # noqa: F401


def per_class_accuracy(logits: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Return each class's accuracy, percent, float64 [C]; NaN for a class without images.

    ``logits`` is [N, C] (the highest column wins), ``labels`` int64 [N].
    """
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    count = max(num_classes, 2)  # torchmetrics knows no single class
    confusion = multiclass_confusion_matrix(logits.argmax(dim=1), labels, num_classes=count).double()
    return (100 * confusion.diag() / confusion.sum(dim=1))[:num_classes]


def macro_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the mean of :func:`per_class_accuracy` over the classes present, percent.

    Raises
    ------
    ValueError
        If there is no image.
    """
    if not len(labels):
        raise ValueError("there is no image to judge")
    return float(torch.nanmean(per_class_accuracy(logits, labels, logits.shape[1])))
