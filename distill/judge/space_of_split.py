"""Space metrics of one split: a student's outputs beside the teacher's cached rows, joined by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from distill.config import RunConfig
from distill.data.stream import EvalSplit
from distill.data.support import rows_of
from distill.judge.space import space_metrics
from distill.student.heads import Head

ROWS_AT_ONCE = 4096


def teacher_has_rows(heads: Sequence[Head], split: EvalSplit) -> bool:
    """Say whether some image of a split has a row of every teacher."""
    rows = [rows_of(head.cache, split.name) for head in heads]
    keys = [image.key for image in split.pixels.samples]
    return all(own is not None and bool((own.find(keys) >= 0).any()) for own in rows)


def open_teacher_rows(heads: Sequence[Head], splits: Iterable[EvalSplit]) -> None:
    """Open the teachers' rows that splits are judged beside, while nothing is done yet.

    UserError where a file of them is missing, cut short or damaged, or a teacher has none of some images.
    """
    for split in splits:
        for rows in (rows_of(head.cache, split.name) for head in heads):
            _ = rows.embeddings if rows is not None else None


@dataclass(frozen=True, kw_only=True)
class SpaceResult:
    """How near a student's embeddings of one split are to a teacher's that has no texts to classify by.

    ``cosine`` is the mean over the ``images`` that have a row of the teacher's, -1 to 1; ``unreadable`` and
    ``other_data`` are those of :class:`distill.judge.evaluate.SplitResult`.
    """

    split: str
    cosine: float
    images: int
    unreadable: dict[str, str] = field(default_factory=dict)
    other_data: str = ""

    def metrics(self) -> dict[str, float]:
        """Return every number under the ending that it has among a run's metrics."""
        return {"cosine": self.cosine}

    def to_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return asdict(self)


@torch.no_grad()
def cosines_of_split(head: Head, outputs: Tensor, split: EvalSplit, *, name: str) -> SpaceResult | None:
    """Judge a head's part [N, D] of the outputs of a split's readable images; None without teacher rows."""
    rows = rows_of(head.cache, split.name)
    row_of = rows.find(split.keys) if rows is not None else np.empty(0, dtype=np.int64)
    at = np.flatnonzero(row_of >= 0)
    if rows is None or not len(at):
        return None
    total = 0.0
    for start in range(0, len(at), ROWS_AT_ONCE):
        block = at[start : start + ROWS_AT_ONCE]
        theirs = head.in_its_space(torch.from_numpy(rows.embeddings[row_of[block]])).float().cpu()
        total += float(F.cosine_similarity(outputs[block].float().cpu(), theirs, dim=1).sum())
    return SpaceResult(
        split=name, cosine=total / len(at), images=len(at), unreadable=dict(split.pixels.unreadable)
    )


@torch.no_grad()
def space_of_split(
    heads: Sequence[Head], outputs: Iterable[tuple[Tensor, Tensor]], split: EvalSplit, config: RunConfig
) -> dict[str, dict[str, float]]:
    """Return the space metrics of a split for every head, called SPLIT, or SPLIT@TEACHER after the first.

    Only images that have a teacher row count, of many a sample (``eval.space_images``); ``images`` says how
    many.
    """
    student = torch.cat([output for output, _ in outputs]).cpu()
    keys = split.keys
    space = {}
    for i, head in enumerate(heads):
        rows = rows_of(head.cache, split.name)
        assert rows is not None
        row_of = rows.find(keys)
        at = _sample(np.flatnonzero(row_of >= 0), config.eval.space_images)
        teacher = rows.embeddings[row_of[at]]
        text = _class_texts(head, split)
        name = split.name if i == 0 else f"{split.name}@{head.name}"
        metrics = space_metrics(
            head.embed(student)[at],
            head.in_its_space(torch.from_numpy(teacher)).float().cpu(),
            text,
            temperature=config.loss.temperature,
            k=config.loss.vlalign_k,
        )
        space[name] = {"images": len(at), **metrics}
    return space


def _sample(at: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Return so many of some images, the same at every call, in their order."""
    return at if len(at) <= most else np.sort(np.random.default_rng(0).choice(at, most, replace=False))


def _class_texts(head: Head, split: EvalSplit) -> Tensor | None:
    if not head.has_texts:
        return None
    if not head.texts.per_image:
        text = head.class_texts(split.class_names, torch.empty(0, head.stop - head.start)).detach().cpu()
        return text[0] if text.dim() == 3 else text  # of a pair the one that says that the object is there
    # Texts that depend on the image belong to no space of their own: the teacher's fixed ones stand in.
    fixed = torch.from_numpy(head.cache.text_bank("labels").class_texts(split.class_names))
    return head.texts_in_its_space(fixed).cpu()
