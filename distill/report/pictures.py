"""What was taken for what, with the pictures; and the map of both embedding spaces."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from distill.judge.outputs import Confusion, EmbeddingSample, confusions, shown_split
from distill.report.collect import Run
from distill.report.groups import Group
from distill.report.tasks import split_label

PAIRS, EXAMPLES = 12, 3
# As many classes as there are colours; the others are grey.
HIGHLIGHTED = 7
EXTENT = 1000


@dataclass(frozen=True, kw_only=True)
class ConfusedPair:
    """One pair of classes with pictures: numbers of those in the page's list, and their names."""

    confusion: Confusion
    wrong: tuple[tuple[int, str], ...]
    like: tuple[int, str] | None


@dataclass(frozen=True, kw_only=True)
class ConfusedGroup:
    """The most confused pairs of one group, added up over its seeds: OOD ones, where it has an OOD test."""

    group: Group
    split: str
    pairs: tuple[ConfusedPair, ...]


@dataclass(frozen=True, kw_only=True)
class Confused:
    """Every group's confused pairs, and the pictures, each once, as data URIs; ``numbers`` of them by key."""

    groups: tuple[ConfusedGroup, ...]
    pictures: tuple[str, ...]
    numbers: dict[str, int] = field(default_factory=dict)


def confused_groups(groups: Sequence[Group]) -> Confused:
    """Return the most confused pairs of every group whose runs left answers: of OOD images, else of ID."""
    # Of runs of one data set the same key is the same picture.
    jpeg = {k: p for g in groups for r in g.runs if r.outputs for k, p in r.outputs.pictures.items()}
    number: dict[str, int] = {}
    confused = []
    for group in groups:
        split = shown_split([name for run in group.runs if run.outputs for name in run.outputs.answers])
        if split is None:
            continue
        answers = [r.outputs.answers[split] for r in group.runs if r.outputs and split in r.outputs.answers]
        pairs = []
        for confusion in confusions(answers, most=PAIRS):
            shown = [key for key in confusion.keys if key in jpeg][:EXAMPLES]
            like = next((key for key in jpeg if key.rpartition("/")[0] == confusion.predicted), None)
            wrong = tuple((number.setdefault(key, len(number)), key) for key in shown)
            pairs.append(
                ConfusedPair(
                    confusion=confusion,
                    wrong=wrong,
                    like=(number.setdefault(like, len(number)), like) if like is not None else None,
                )
            )
        confused.append(ConfusedGroup(group=group, split=split_label(split), pairs=tuple(pairs)))
    mapped = next((r.outputs.sample for g in groups for r in g.runs if r.outputs and r.outputs.sample), None)
    for key in mapped.keys if mapped is not None else ():
        if key in jpeg:
            number.setdefault(key, len(number))
    uris = [f"data:image/jpeg;base64,{base64.b64encode(jpeg[key]).decode()}" for key in number]
    return Confused(groups=tuple(confused), pictures=tuple(uris), numbers=number)


def space_map(groups: Sequence[Group], confused: Confused) -> dict[str, Any] | None:
    """Return the map for the page's script: every group's first run with a sample, one teacher's axes.

    The axes are the first two principal components of the teacher's unit rows; the student's rows are
    projected onto the same. Places are whole numbers, -1000 to 1000 on the longer side. None without a run
    that kept embeddings.
    """
    samples = [
        (group, run, run.outputs.sample)
        for group in groups
        for run in group.runs[:1]
        if run.outputs is not None and run.outputs.sample is not None
    ]
    if not samples:
        return None
    _, _, first = samples[0]
    same = [item for item in samples if item[2].keys == first.keys and _alike(item[2], first)]
    classes = sorted(set(first.classes))
    position = {name: i for i, name in enumerate(classes)}
    teacher = first.teacher.astype(np.float64)
    mean, axes, share = principal_axes(teacher)
    theirs = (teacher - mean) @ axes
    ours = [(sample.student.astype(np.float64) - mean) @ axes for _, _, sample in same]
    scale = EXTENT / max(float(np.abs(places).max()) for places in [theirs, *ours])
    named = [
        n for g in confused.groups[:1] for p in g.pairs for n in (p.confusion.true, p.confusion.predicted)
    ]
    chosen = [position[name] for name in dict.fromkeys([*named, *classes]) if name in position]
    return {
        "classes": classes,
        "highlighted": chosen[:HIGHLIGHTED],
        "label": [position[name] for name in first.classes],
        "ood": [int(split.startswith("ood")) for split in first.splits],
        "pictures": [confused.numbers.get(key, -1) for key in first.keys],
        "share": [round(100 * float(s), 1) for s in share],
        "teacher": _whole(theirs * scale),
        "students": [
            {"label": _called(group, run), "places": _whole(places * scale)}
            for (group, run, _), places in zip(same, ours, strict=True)
        ],
    }  # fmt: skip


def _called(group: Group, run: Run) -> str:
    return run.name if group.label in run.name else f"{group.label}: {run.name}"


def _alike(one: EmbeddingSample, other: EmbeddingSample) -> bool:
    return one.teacher.shape == other.teacher.shape and np.allclose(one.teacher, other.teacher, atol=1e-3)


def principal_axes(
    rows: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean [D] of rows [n, D], their first two principal axes [D, 2], and the share of variance.

    Signs are fixed by each axis's largest number, so that the same rows give the same map.
    """
    mean = rows.mean(axis=0)
    _, spread, axes = np.linalg.svd(rows - mean, full_matrices=False)
    axes = np.pad(axes, ((0, max(0, 2 - len(axes))), (0, 0)))[:2].T
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    total = float((spread**2).sum()) or 1.0
    return mean, axes * np.where(signs == 0, 1, signs), np.pad(spread, (0, 2))[:2] ** 2 / total


def _whole(places: NDArray[np.float64]) -> list[list[int]]:
    return np.nan_to_num(places).round().astype(int).tolist()
