"""The one place that adds the losses up."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor

from distill import losses
from distill.config import LossConfig

Neighbours = tuple[Tensor, Tensor]

# Cosines of a float16 row with itself, cast and normalised, are 1 but for less than this.
SAME_ROW = 1e-5


@dataclass(kw_only=True)
class Scales:
    """What differences of a teacher's rows are multiplied by: of ``unit`` rows, and of ``raw`` ones.

    Standardised (:mod:`distill.student.phi_s`) they are one over the root of the rows' whole variance, the
    sum over D: the mean row in place of each then has a squared distance of 1, whoever the teacher is.
    """

    unit: float = 1.0
    raw: float = 1.0


def distillation_objective(
    student: Tensor,
    teacher: Tensor,
    text: Tensor,
    labels: Tensor,
    config: LossConfig,
    *,
    captions: Tensor | None = None,
    neighbours: Neighbours | None = None,
    cosines: Tensor | None = None,
    bank: Tensor | None = None,
    scales: Scales | None = None,
    weights: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return every loss that is switched on, and their weighted sum, in float32 also under autocast.

    ``student`` and ``teacher`` are image embeddings [B, D], ``text`` class texts' [C, D], or [B, C, D] where
    every image has texts of its own, and ``captions`` [B, D], needed when ``config.cap`` is on: all raw.
    ``labels`` int64 [B] are rows of ``text``, -1 where an image has none: ``cls`` and the filter of
    ``vlalign`` see those that have one alone, every other loss sees all. ``neighbours`` are ``(nearest [B, K]
    columns of text, similarity [B, K] plain cosines)``, best first, of which the first
    ``min(config.vlalign_k, K)`` count; None takes them from ``teacher`` and ``text``. ``cosines`` are
    :func:`text_cosines` of ``student`` and ``text``, where they are at hand. ``bank`` are unit rows [Q, D] of
    the teacher's, further negatives of ``im_cst``; those equal to an image's own are none of its.

    The losses are unweighted scalars by the name of their weight in ``config``. ValueError if captions are
    needed and not given.
    """
    if config.cap and captions is None:
        raise ValueError("loss.cap is on, but there are no caption embeddings")
    terms: dict[str, Tensor] = {}
    # Autocast would run the products of cosines in 16 bits, and dividing by 0.07 magnifies what that rounds.
    with torch.autocast(student.device.type, enabled=False):
        unit_student, unit_teacher = _unit(student), _unit(teacher)
        if config.cls or config.vlalign:
            logits = (text_cosines(student, text) if cosines is None else cosines) / config.temperature
        if config.cls:
            terms["cls"] = losses.classification_loss(logits, labels)
        if config.vlalign:
            terms["vlalign"] = _vlalign(logits, unit_teacher, text, labels, config, neighbours, weights)
        if config.mse:
            terms["mse"] = losses.mse_loss(
                unit_student, unit_teacher, weight_B=weights, scale=scales.unit if scales else 1.0
            )
        if config.mse_raw:
            terms["mse_raw"] = losses.mse_raw_loss(
                student, teacher, weight_B=weights, scale=scales.raw if scales else 1.0
            )
        if config.im_cst:
            temperature = config.im_cst_temperature or config.temperature
            terms["im_cst"] = losses.image_contrastive_loss(
                unit_student @ unit_teacher.T / temperature,
                bidirectional=config.im_cst_bidirectional,
                more_BQ=None if bank is None else _negatives(unit_student, unit_teacher, bank) / temperature,
                weight_B=weights,
            )
        if captions is not None and config.cap:
            terms["cap"] = losses.caption_loss(unit_student @ _unit(captions).T, labels, weight_B=weights)
    weighted = [getattr(config, name) * term for name, term in terms.items()]
    # Not sum(weighted): it would begin with 0 + and add nothing but a kernel.
    return {**terms, "total": reduce(torch.add, weighted) if weighted else student.sum() * 0}


def text_cosines(student: Tensor, text: Tensor) -> Tensor:
    """Return the cosines [B, C] of student embeddings [B, D] and class texts [C, D] or [B, C, D], float32."""
    with torch.autocast(student.device.type, enabled=False):
        return _cosines(_unit(student), _unit(text))


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)


def _cosines(unit_rows: Tensor, unit_text: Tensor) -> Tensor:
    if unit_text.dim() == 3:
        return torch.einsum("bd,bcd->bc", unit_rows, unit_text)
    return unit_rows @ unit_text.T


def _negatives(unit_student: Tensor, unit_teacher: Tensor, unit_bank: Tensor) -> Tensor:
    """Return cosines [B, Q] with the rows of a bank, less than any cosine where a row is the image's own."""
    own = unit_teacher @ unit_bank.T > 1 - SAME_ROW
    return (unit_student @ unit_bank.T).masked_fill(own, losses.MASKED_OUT)


def _vlalign(
    logits: Tensor,
    unit_teacher: Tensor,
    text: Tensor,
    labels: Tensor,
    config: LossConfig,
    neighbours: Neighbours | None,
    weights: Tensor | None,
) -> Tensor:
    k = min(config.vlalign_k, text.shape[-2])
    nearest, similarity = nearest_texts(unit_teacher, _unit(text), k) if neighbours is None else neighbours
    nearest, similarity = nearest[:, :k].long(), similarity[:, :k]
    # Whether the teacher is right nobody knows of an image without a label: it stays.
    keep = (nearest[:, 0] == labels) | (labels < 0) if config.vlalign_filter else None
    if config.vlalign_standardize:
        own, theirs = losses.standardized(logits.gather(1, nearest)), losses.standardized(similarity)
        temperature = config.vlalign_temperature or 1.0
        places = torch.arange(nearest.shape[1], device=nearest.device).expand_as(nearest)
        return losses.vlalign_loss(
            own / temperature, theirs / temperature, places, keep_B=keep, weight_B=weights
        )
    temperature = config.vlalign_temperature or config.temperature
    if temperature != config.temperature:
        logits = logits * (config.temperature / temperature)
    return losses.vlalign_loss(logits, similarity / temperature, nearest, keep_B=keep, weight_B=weights)


def nearest_texts(unit_teacher: Tensor, unit_text: Tensor, k: int) -> Neighbours:
    """Return the ``k`` texts of highest cosine for every image, [B, k] int64 and their cosines, best first.

    ``unit_text`` is [C, D] or [B, C, D]. It is what :func:`cache.store.neighbours.nearest_texts` gives, on
    the device. Of texts that are equally near the nearest is the first; further on the order of equal ones is
    open, and so is which of them is the last: to the loss they are one.
    """
    cosines = _cosines(unit_teacher, unit_text)
    similarity, nearest = cosines.topk(k, dim=1)
    # topk says nothing of equal values, argmax that it takes the first: the filter must not toss a coin.
    first = cosines.argmax(dim=1, keepdim=True)
    other = nearest[:, :1]
    return torch.cat([first, torch.where(nearest[:, 1:] == first, other, nearest[:, 1:])], dim=1), similarity
