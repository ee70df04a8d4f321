"""Space metrics of one split: a student's outputs beside the teacher's cached rows, joined by key."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from distill.config import RunConfig
from distill.data.stream import EvalSplit
from distill.data.support import rows_of
from distill.judge.space import space_metrics
from distill.student.heads import Head


def teacher_has_rows(heads: Sequence[Head], split: EvalSplit) -> bool:
    """Say whether some image of a split has a row of every teacher."""
    rows = [rows_of(head.cache, split.name) for head in heads]
    keys = [image.key for image in split.pixels.samples]
    return all(own is not None and bool((own.find(keys) >= 0).any()) for own in rows)


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


def _class_texts(head: Head, split: EvalSplit) -> Tensor:
    if not head.texts.per_image:
        text = head.class_texts(split.class_names, torch.empty(0, head.stop - head.start)).detach().cpu()
        return text[0] if text.dim() == 3 else text  # of a pair the one that says that the object is there
    # Texts that depend on the image belong to no space of their own: the teacher's fixed ones stand in.
    fixed = torch.from_numpy(head.cache.text_bank("labels").class_texts(split.class_names))
    return head.texts_in_its_space(fixed).cpu()
