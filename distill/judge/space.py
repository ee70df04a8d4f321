"""How close a student's embedding space is to its teacher's, on one split's images: numbers, no model.

Everything is judged on rows of length 1, because cosines are all that a trained student is used for, so
the scale of an embedding never counts. A row of zeros stays zero and has cosine 0 with everything.
Shape suffixes: N = images, C = class texts, D = embedding size, K = neighbours per image, P = pairs of
images. Rows of a ``unit_`` array or tensor have length 1, float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from cache.store.neighbours import nearest_texts
from distill.losses import vlalign_loss

# Cosines and unit rows of float32 embeddings that are no further apart than this are the same number.
ROUNDING = 1e-6


@torch.no_grad()
def space_metrics(
    student: Tensor,
    teacher: Tensor,
    text: Tensor | None,
    *,
    temperature: float = 0.07,
    k: int = 256,
    top: Sequence[int] = (1, 5, 10),
    max_pairs_images: int = 2000,
) -> dict[str, float]:
    """Compare two embeddings of the same images.

    Parameters
    ----------
    student, teacher
        [N, D1] and [N, D2], raw, one row an image in the same order.
    text
        [C, D2], raw, one row a class; None of a teacher without texts.
    temperature, k
        Of ``vlalign``: what cosines are divided by, and how many of the teacher's nearest texts count.
    top
        How many neighbours the overlaps look at, each under its own key, cut to what there is.
    max_pairs_images
        ``pairwise_spearman`` looks at the pairs among at most so many images, drawn from more.

    Returns
    -------
    dict
        Finite numbers by the names of the functions below; ``cosine`` is the mean of every image's own, and
        ``vlalign`` the loss. Left out is what is not defined: with one image ``linear_cka`` and
        ``image_neighbours_K``, with fewer than three ``pairwise_spearman``, and where D1 is not D2 (a
        student without a teacher) ``cosine``, ``text_neighbours_K`` and ``vlalign``, the last two without
        texts too. ValueError if there is no image or no text, shapes do not fit, a number is not finite, or
        ``k`` or one of ``top`` is below 1.
    """
    _check(student, teacher, text, smallest=min([k, *top]))
    unit_student, unit_teacher = _unit(student), _unit(teacher)
    numbers: dict[str, float] = {}
    if student.shape[1] == teacher.shape[1]:
        numbers["cosine"] = float((unit_student * unit_teacher).sum(dim=1).mean())
        if text is not None:
            numbers |= _text_metrics(unit_student, unit_teacher, _unit(text), temperature, k, top)
    if len(student) > 1:
        numbers["linear_cka"] = linear_cka(unit_student, unit_teacher)
        ours, theirs = (image_neighbours(unit, max(top, default=1)) for unit in (unit_student, unit_teacher))
        numbers |= {f"image_neighbours_{count}": overlap(ours, theirs, count) for count in top}
    if min(len(student), max_pairs_images) > 2:
        drawn = _drawn(len(student), max_pairs_images)
        numbers["pairwise_spearman"] = pairwise_spearman(unit_student[drawn], unit_teacher[drawn])
    return numbers


def linear_cka(unit_student_ND: Tensor, unit_teacher_ND: Tensor) -> float:
    """Linear centred kernel alignment (Kornblith et al. 2019, arXiv 1905.00414, section 3), 0 to 1.

    ``||Y'X||^2 / (||X'X|| ||Y'Y||)``, Frobenius norms of D x D products in float64, of rows of length 1
    (the paper takes raw rows) with every column's mean subtracted. 0 if the rows of either side are all
    the same but for rounding: nothing is there to align.
    """
    x, y = (rows.double() - rows.double().mean(dim=0) for rows in (unit_student_ND, unit_teacher_ND))
    if min(float(rows.square().sum()) for rows in (x, y)) <= ROUNDING**2 * len(x):
        return 0.0
    return float((y.T @ x).square().sum() / ((x.T @ x).norm() * (y.T @ y).norm()))


def image_neighbours(unit_ND: Tensor, k: int) -> NDArray[np.int32]:
    """Return every image's k nearest other images by cosine, best first, int32 [N, min(k, N - 1)].

    Exact: compares all N x N pairs. An image is left out of its own by its index, since a copy of it may
    come first. Which of several images at exactly the same cosine are given is up to FAISS.
    """
    rows, k = unit_ND.numpy(), min(k, len(unit_ND) - 1)
    nearest, _ = nearest_texts(rows, rows, k + 1)
    # Itself goes last and falls off; where copies crowded it out, the worst of k + 1 falls off instead.
    order = np.argsort(nearest == np.arange(len(rows))[:, None], axis=1, kind="stable")[:, :k]
    return np.take_along_axis(nearest, order, axis=1)


def overlap(student_NK: NDArray[np.int32], teacher_NK: NDArray[np.int32], k: int) -> float:
    """Mean share, 0 to 1, of the first k neighbours that both sides have, in whatever order.

    Mutual nearest neighbours of Huh et al. 2024, arXiv 2405.07987, section 2. ``k`` beyond K is K.
    """
    ours, theirs = student_NK[:, :k], teacher_NK[:, :k]
    return float((ours[:, :, None] == theirs[:, None, :]).any(axis=2).mean())


def pairwise_spearman(unit_student_ND: Tensor, unit_teacher_ND: Tensor) -> float:
    """Spearman correlation, -1 to 1, of the two sides' cosines over all pairs i < j of images.

    Representational similarity analysis (Kriegeskorte et al. 2008, doi 10.3389/neuro.06.004.2008). Equal
    cosines, when rounded to six decimals, share their average rank; 0 if one side's cosines are all equal.
    """
    x, y = (_average_ranks(_pair_cosines(unit)) for unit in (unit_student_ND, unit_teacher_ND))
    x, y = x - x.mean(), y - y.mean()
    spread = float(x.norm() * y.norm())
    return float(x @ y) / spread if spread else 0.0


def _text_metrics(
    unit_student: Tensor,
    unit_teacher: Tensor,
    unit_text: Tensor,
    temperature: float,
    k: int,
    top: Sequence[int],
) -> dict[str, float]:
    texts, most = unit_text.numpy(), max(top, default=1)
    ours, _ = nearest_texts(unit_student.numpy(), texts, most)
    theirs, similarity = nearest_texts(unit_teacher.numpy(), texts, max(k, most))
    divergence = vlalign_loss(
        unit_student.float() @ unit_text.float().T / temperature,
        torch.from_numpy(similarity[:, :k]) / temperature,
        torch.from_numpy(theirs[:, :k]).long(),
    )
    numbers = {f"text_neighbours_{count}": overlap(ours, theirs, count) for count in top}
    # A divergence is never negative; its rounding is.
    return numbers | {"vlalign": max(0.0, float(divergence))}


def _pair_cosines(unit_ND: Tensor) -> Tensor:
    first, second = torch.triu_indices(len(unit_ND), len(unit_ND), offset=1)
    return (unit_ND @ unit_ND.T)[first, second]


def _average_ranks(values_P: Tensor) -> Tensor:
    # Not torchmetrics' spearman_corrcoef: it adds up tied ranks in int32, which a few thousand ties
    # among two million pairs overflow.
    _, inverse, counts = (values_P / ROUNDING).round().unique(return_inverse=True, return_counts=True)
    return (counts.cumsum(0) - (counts - 1).double() / 2)[inverse]


def _drawn(images: int, most: int) -> Tensor:
    if images <= most:
        return torch.arange(images)
    return torch.from_numpy(np.random.default_rng(0).choice(images, most, replace=False))


def _unit(rows_ND: Tensor) -> Tensor:
    # float64 before the length is taken: the square of a small float32 is 0.
    return F.normalize(rows_ND.detach().cpu().double(), dim=1, eps=1e-300)


def _check(student: Tensor, teacher: Tensor, text: Tensor | None, *, smallest: int) -> None:
    named = {"student": student, "teacher": teacher, **({"text": text} if text is not None else {})}
    shapes = ", ".join(f"{name} {tuple(rows.shape)}" for name, rows in named.items())
    if any(rows.ndim != 2 or not rows.numel() for rows in named.values()):
        raise ValueError(f"there is no image or no text to compare: {shapes}")
    if len(student) != len(teacher) or (text is not None and teacher.shape[1] != text.shape[1]):
        raise ValueError(f"student [N, D1], teacher [N, D2] and text [C, D2] do not fit: {shapes}")
    for name, rows in named.items():
        if not rows.isfinite().all():
            raise ValueError(f"{name} has numbers that are not finite")
    if smallest < 1:
        raise ValueError(f"k and every number of top must be at least 1, got {smallest}")
