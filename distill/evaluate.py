"""One evaluator for student and teacher: the teacher is a student whose output is the cached row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cache import EmbeddingCache
from cache.errors import UserError
from cache.splits import SPLITS, split_name
from cache.transfer import to_device
from distill.classifier import Classifier, TextClassifier
from distill.metrics import per_class_accuracy
from distill.pixels import Pixels

# The original code's zero-shot evaluation of the teacher: CLIP's own logit scale of 100.
TEACHER_TEMPERATURE = 0.01


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """How well one split is classified among its own classes.

    ``accuracy`` is the macro accuracy in percent, ``loss`` the mean cross-entropy, ``per_class`` each
    class's accuracy in percent; classes without images are left out of all three. ``other_data`` says in what
    the images are not those that the run was trained or judged with, '' where they are.
    """

    split: str
    accuracy: float
    loss: float
    images: int
    per_class: dict[str, float]
    unreadable: dict[str, str] = field(default_factory=dict)
    other_data: str = ""

    @property
    def chance(self) -> float:
        """The accuracy of guessing, in percent."""
        return 100 / len(self.per_class)


@torch.no_grad()
def evaluate(
    outputs: Iterable[tuple[Tensor, Tensor]],
    classifier: Classifier,
    *,
    split: str,
    class_names: Sequence[str],
    unreadable: Mapping[str, str] | None = None,
) -> SplitResult:
    """Judge outputs against labels.

    Parameters
    ----------
    outputs
        Batches of (outputs [B, D], labels [B] int64).
    classifier
        Turns outputs into logits over ``class_names``.
    unreadable
        Images that could not be judged, by key, with the reason; filled while ``outputs`` is read.

    Raises
    ------
    UserError
        If there is no image to judge.
    """
    logits, labels = [], []
    for output, label in outputs:
        logits.append(classifier(output).cpu())
        labels.append(label.cpu())
    if not labels:
        raise UserError(f"no image of {split} could be read", fix="check that the files are images.")
    all_logits, all_labels = torch.cat(logits), torch.cat(labels)
    per_class = per_class_accuracy(all_logits, all_labels, len(class_names))
    present = ~per_class.isnan()
    return SplitResult(
        split=split,
        accuracy=float(per_class[present].mean()),
        loss=float(F.cross_entropy(all_logits, all_labels)),
        images=len(all_labels),
        per_class={
            name: float(value)
            for name, value, here in zip(class_names, per_class, present, strict=True)
            if here
        },
        unreadable=dict(unreadable or {}),
    )


def judge_heads(
    outputs: Iterable[tuple[Tensor, Tensor]],
    classifiers: Sequence[tuple[str, slice, Classifier]],
    *,
    split: str,
    class_names: Sequence[str],
    pixels: Pixels | None = None,
) -> dict[str, SplitResult]:
    """Judge one pass of a student's outputs by every head's classifier.

    ``classifiers`` are (ending, columns, classifier); a head's result is called SPLIT and its ending.
    """
    kept = list(outputs)
    return {
        f"{split}{ending}": evaluate(
            [(output[:, columns], label) for output, label in kept],
            classifier,
            split=f"{split}{ending}",
            class_names=class_names,
            unreadable=pixels.unreadable if pixels is not None else {},
        )
        for ending, columns, classifier in classifiers
    }


@torch.no_grad()
def student_outputs(
    student: nn.Module,
    pixels: Pixels,
    forward: Callable[[Tensor], Tensor],
    *,
    batch_size: int,
    device: torch.device,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield (outputs [B, ...] float32, labels) over images in their order.

    ``forward`` takes decoded images on ``device`` to outputs of ``student``, which is in evaluation mode.
    """
    labels = np.array([record.label for record in pixels.records], dtype=np.int64)
    order = np.arange(len(labels))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    was_training = student.training
    student.eval()
    try:
        for indices, images in pixels.batches(batches):
            if len(indices):
                # A copy: a student compiled to CUDA graphs writes its next outputs over these.
                outputs = forward(to_device(images, device)).to(torch.float32, copy=True)
                yield outputs, torch.from_numpy(labels[indices])
    finally:
        student.train(was_training)


def evaluate_teacher(
    cache_dir: Path, *, splits: Sequence[str] = (), text: str = "labels", batch_size: int = 4096
) -> dict[str, SplitResult]:
    """Judge the teacher from the cache alone: no model is loaded and no image is read.

    ``splits`` names some (either name); none means all that the cache has.

    Raises
    ------
    UserError
        If the cache has no such split or text bank, or is of episodes.
    """
    cache = EmbeddingCache.open(cache_dir)
    bank = cache.text_bank(text)
    names = [split_name(name) for name in splits] or [name for name in SPLITS if name in cache.split_names]
    results = {}
    for name in names:
        rows = cache.split(name)
        if rows.labels.ndim != 1:
            raise UserError(
                f"{cache_dir} is a cache of episodes with several labels each",
                fix="use 'distill robotics evaluate --teacher'.",
            )
        classifier = TextClassifier(
            text=torch.from_numpy(bank.class_texts(rows.class_names)), temperature=TEACHER_TEMPERATURE
        )
        outputs = (
            (
                torch.from_numpy(rows.embeddings[start : start + batch_size]).float(),
                torch.from_numpy(rows.labels[start : start + batch_size]),
            )
            for start in range(0, len(rows), batch_size)
        )
        results[name] = evaluate(outputs, classifier, split=name, class_names=rows.class_names)
    return results
