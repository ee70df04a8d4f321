"""Train a student on an image folder: its losses, its training accuracy, and how it is judged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from cache.runtime.distributed import ranks_of_torchrun
from cache.runtime.progress import Progress, Silent
from distill.config import RunConfig
from distill.data.augment import eval_transform, resize_size
from distill.data.batch import Batch, Crops, Share
from distill.data.identity_reader import note_gone
from distill.data.stream import EvalSplit
from distill.judge.evaluate import SplitResult, judge_heads, metrics_of, student_outputs
from distill.judge.outputs import RunOutputs
from distill.judge.space_of_split import space_of_split, teacher_has_rows
from distill.objective import distillation_objective, text_cosines
from distill.record.wandb_board import wandb_module
from distill.student.heads import classifiers_for
from distill.train.distributed import gather_rows
from distill.train.loop import BEST, CONFIG, CURVES, LAST, METRICS, SUMMARY, Stopped, check_out, fit
from distill.train.outputs_of_run import outputs_of_run, teacher_results
from distill.train.session import Session, open_session

__all__ = ["BEST", "CONFIG", "CURVES", "LAST", "METRICS", "SUMMARY", "Stopped", "run"]


def run(
    config: RunConfig,
    *,
    cache_dir: Path,
    data_dir: Path,
    out: Path,
    resume_run: bool = False,
    progress: Progress | None = None,
    command: Sequence[str] = (),
    wandb: str = "",
) -> dict[str, Any]:
    """Train one student and return its summary; see :func:`distill.train.loop.fit`.

    Raises
    ------
    UserError
        If cache, data and config do not fit, ``out`` holds something else, or a loss is not finite.
    Stopped
        After SIGTERM or Ctrl-C, with the state saved.
    """
    progress = progress or Silent()
    check_out(out, resume_run=resume_run)
    if wandb:
        wandb_module()
    with ranks_of_torchrun() as ranks:
        session = open_session(config, cache_dir=cache_dir, data_dir=data_dir)
        say_what_differs(session, progress)
        ranks.wait()  # until every process has looked at ``out``
        task = ImageTask(session)
        return fit(task, out, resume_run=resume_run, progress=progress, command=command, wandb=wandb)


def say_what_differs(session: Session, progress: Progress) -> None:
    """Note what a user may not expect of this cache: images without rows, or gone, pixels of another size."""
    left_out = session.data.joined.left_out
    if left_out:
        progress.note(f"{left_out:,} training images have no teacher row and are left out")
    note_gone(session.cache, session.folder, progress)
    kept = session.cache.manifest.pixels.get("train")
    if kept is not None and session.config.data.pixels == "auto" and session.data.pixels.stored is None:
        side = resize_size(session.config.student.image_size)
        progress.note(
            f"the cache keeps pixels of {kept.side} px, this student takes {side}: files are decoded"
        )


@dataclass(kw_only=True)
class ClassCounts:
    """Right answers and images of every class, on the device."""

    right_C: Tensor
    seen_C: Tensor

    def add(self, scores: Tensor, labels: Tensor) -> None:
        """Count one batch: scores [B, C], labels int64 [B]."""
        self.seen_C.index_add_(0, labels, torch.ones_like(labels, dtype=torch.float64))
        self.right_C.index_add_(0, labels, (scores.argmax(dim=1) == labels).double())

    def state(self) -> dict[str, Tensor]:
        """Return both counts."""
        return {"right_C": self.right_C, "seen_C": self.seen_C}

    def metrics(self) -> dict[str, float]:
        """Return the macro accuracy over the classes seen, in percent."""
        seen = self.seen_C > 0
        return {"train_accuracy": float((100 * self.right_C[seen] / self.seen_C[seen]).mean())}


@dataclass
class ImageTask:
    """One label an image: the distillation objective, judged by macro accuracy."""

    session: Session
    results: dict[str, SplitResult] = field(default_factory=dict)
    headline: str = "macro accuracy"
    measure: str = "macro accuracy"
    curves: tuple[tuple[str, str], ...] = tuple(
        (name, f"{name}_accuracy") for name in ("train", "id_val", "id_test", "ood_test", "ood_query")
    )

    def augmented(
        self, images: Tensor, generator: Generator, share: Share, crops: Crops | None = None
    ) -> Tensor:
        """Return augmented images, or with ``crops`` these of them."""
        return self.session.augment(images, generator, share, crops)

    def losses(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Return an augmented batch's losses, and its cosines or logits [B, C]."""
        with self.session.autocast():
            outputs = self.session.student(batch.image_BXRR)
        return losses_and_logits(self.session, gather_rows(outputs, len(batch.keys)), batch)

    def counts(self, state: dict[str, Tensor]) -> ClassCounts:
        """Return the counts of an epoch."""
        if state:
            return ClassCounts(**state)
        zeros = torch.zeros(len(self.session.class_names), dtype=torch.float64, device=self.session.device)
        return ClassCounts(right_C=zeros, seen_C=zeros.clone())

    def judge(self, *, late: bool) -> dict[str, float]:
        """Judge OOD and id_val every epoch, ID in the last epochs, as the original code reports them.

        In the last epochs all classes of the data compete as well: for CoCoOp, whose texts are of each image,
        that is twice the work.
        """
        self.results = {
            name: result
            for split in self.session.evals.values()
            if late or split.name != "id_test"
            for name, result in _judged(self.session, split, among_all=late).items()
        }
        return metrics_of(self.results)

    def chosen_by(self, metrics: dict[str, float]) -> float | None:
        """Return the accuracy on id_val."""
        return metrics.get("id_val_accuracy")

    @cached_property
    def trained_outputs(self) -> dict[str, tuple[Tensor, Tensor]]:
        """The trained student's outputs and the labels of every split, computed once: ask after training."""
        found = {
            name: tuple(zip(*_outputs(self.session, split), strict=True))
            for name, split in self.session.evals.items()
        }
        return {
            name: (torch.cat(outputs).cpu(), torch.cat(labels)) for name, (outputs, labels) in found.items()
        }

    def summary(self, history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return the space metrics, every class's accuracy, and the teacher's where the cache has rows."""
        if not self.results:  # a run that had ended before its summary was written
            self.judge(late=True)
        ood = [line["ood_test_accuracy"] for line in history if "ood_test_accuracy" in line]
        teacher = teacher_results(self.session)
        return {
            "ood_test_accuracy_best_epoch": max(ood, default=None),
            "space": space_of_session(self.session, self.trained_outputs),
            "per_class_accuracy": {name: result.per_class for name, result in self.results.items()},
            "teacher_accuracy": {name: result.accuracy for name, result in teacher.items()},
            "teacher_images": {name: result.images for name, result in teacher.items()},
            "teacher_metrics": metrics_of(teacher),
            "teacher_per_class_accuracy": {name: result.per_class for name, result in teacher.items()},
        }

    def outputs(self) -> RunOutputs:
        """Return the student's answers, some embeddings and a few pictures."""
        return outputs_of_run(self.session, self.trained_outputs)


def losses_and_logits(session: Session, outputs: Tensor, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
    """Return the losses of a batch and its logits over the training classes.

    With several teachers each has its own losses, called ``TEACHER/LOSS``, and the total is their sum; the
    logits are the first head's.
    """
    if not session.heads:
        assert session.columns is not None
        loss = F.cross_entropy(outputs.float(), session.columns[batch.label_B])
        return {"cls": loss, "total": loss}, outputs.detach()[:, session.columns]
    parts: dict[str, Tensor] = {}
    total, logits = outputs.new_zeros((), dtype=torch.float32), None
    for head, targets in zip(session.heads, batch.targets, strict=True):
        rows = head.embed(outputs)
        text = head.texts(session.class_names, rows)
        cosines = text_cosines(rows, text)
        found = distillation_objective(
            rows,
            targets.teacher_BD,
            text,
            batch.label_B,
            session.config.loss,
            captions=targets.caption_BD,
            neighbours=targets.neighbours,
            cosines=cosines,
        )
        total = total + found.pop("total")
        before = f"{head.name}/" if len(session.heads) > 1 else ""
        parts |= {f"{before}{name}": value for name, value in found.items()}
        if logits is None:
            logits = cosines.detach()
    assert logits is not None
    return {**parts, "total": total}, logits


def _judged(session: Session, split: EvalSplit, *, among_all: bool) -> dict[str, SplitResult]:
    """Return how well every head classifies a split; see :func:`distill.train.session.classifiers_for`."""
    among = session.all_classes if among_all and session.all_classes.ood_classes else None
    names = among.names if among is not None else split.class_names
    return judge_heads(
        _outputs(session, split),
        classifiers_for(session.config, session.heads, session.folder.class_names, names),
        split=split.name,
        class_names=split.class_names,
        among=among,
        pixels=split.pixels,
    )


def _outputs(session: Session, split: EvalSplit) -> Iterator[tuple[Tensor, Tensor]]:
    def forward(images: Tensor) -> Tensor:
        with session.autocast():
            outputs: Tensor = session.student(eval_transform(images, session.config.student.image_size))
        return outputs

    return student_outputs(
        session.student,
        split.pixels,
        forward,
        batch_size=session.config.train.eval_batch_size,
        device=session.device,
    )


def space_of_session(
    session: Session, outputs: Mapping[str, tuple[Tensor, Tensor]]
) -> dict[str, dict[str, float]]:
    """Return how close the student's embeddings are to the teacher's, by split.

    ``outputs`` are the student's, with their labels, by split. Splits without teacher rows are left out.
    """
    found: dict[str, dict[str, float]] = {}
    for split in session.evals.values() if session.heads else ():
        if teacher_has_rows(session.heads, split):
            found |= space_of_split(session.heads, [outputs[split.name]], split, session.config.loss)
    return found
