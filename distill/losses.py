"""Losses between student and teacher. Pure functions: tensors in, one scalar out.

Source: "Distilling Large Vision-Language Model with Out-of-Distribution Generalizability" (ICCV 2023,
arXiv 2307.03135) and its code. Shape suffixes: B = images in the batch, C = class texts, D = embedding
size, K = neighbours per image. Rows of a ``unit_`` tensor have length 1. Everything is computed in
float32 whatever autocast says: exp(1 / 0.07) does not fit float16. ``weight_B`` is how much each image counts
of a mean over the batch, float32; None is 1 each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

# What the original code subtracts to keep a pair out of the softmax.
MASKED_OUT = -1e7
# The label of an image without one.
UNLABELLED = -1


def classification_loss(logits_BC: Tensor, labels_B: Tensor) -> Tensor:
    """L-cls: cross-entropy of ``unit_student @ unit_text.T / temperature``; labels are columns, int64.

    The mean over the images that have a label, which others have not (-1); zero with zero gradient of none.
    """
    summed = F.cross_entropy(logits_BC.float(), labels_B, ignore_index=UNLABELLED, reduction="sum")
    # No wait for the device to count, and no mean of nothing, which is NaN.
    return summed / (labels_B >= 0).sum().clamp(min=1)


def _mean(loss_B: Tensor, weight_B: Tensor | None) -> Tensor:
    return loss_B.mean() if weight_B is None else (loss_B * weight_B).mean()


def mse_loss(
    unit_student_BD: Tensor, unit_teacher_BD: Tensor, *, weight_B: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """L-mse between unit rows, differences times ``scale``: summed over D, mean over B.

    (A mean over D would change its weight D-fold.)
    """
    loss = _mean((unit_student_BD.float() - unit_teacher_BD.float()).square().sum(dim=1), weight_B)
    return loss if scale == 1 else scale**2 * loss


def mse_raw_loss(
    student_BD: Tensor, teacher_BD: Tensor, *, weight_B: Tensor | None = None, scale: float = 1.0
) -> Tensor:
    """Unnormalised L-mse: ``log(1 + mean_B sum_D (s - v)^2 / 10)`` of raw rows, differences by ``scale``."""
    loss = _mean((student_BD.float() - teacher_BD.float()).square().sum(dim=1), weight_B)
    return torch.log1p((loss if scale == 1 else scale**2 * loss) / 10)


def image_contrastive_loss(
    logits_BB: Tensor,
    *,
    bidirectional: bool = True,
    more_BQ: Tensor | None = None,
    weight_B: Tensor | None = None,
) -> Tensor:
    """L-im-cst: each student row finds its own image's teacher row among the batch's.

    ``logits_BB`` are ``unit_student @ unit_teacher.T / temperature``: row = student, column = teacher.
    ``bidirectional`` averages with the other direction, each teacher row finding its student row. ``more_BQ``
    are logits with further teacher rows, of no image of the batch: a student row finds its own among all.
    """
    logits = logits_BB.float()
    target_B = torch.arange(len(logits), device=logits.device)
    forward = _own(logits if more_BQ is None else torch.cat([logits, more_BQ], dim=1), target_B, weight_B)
    return (forward + _own(logits.T, target_B, weight_B)) / 2 if bidirectional else forward


def _own(logits: Tensor, target_B: Tensor, weight_B: Tensor | None) -> Tensor:
    if weight_B is None:
        return F.cross_entropy(logits, target_B)
    return _mean(F.cross_entropy(logits, target_B, reduction="none"), weight_B)


def vlalign_loss(
    student_logits_BC: Tensor,
    teacher_logits_BK: Tensor,
    nearest_BK: Tensor,
    *,
    keep_B: Tensor | None = None,
    weight_B: Tensor | None = None,
) -> Tensor:
    """L-vlalign: KL(teacher || student) over the K texts nearest to each image, renormalised over them.

    Parameters
    ----------
    student_logits_BC
        Student similarity to every class text, divided by temperature.
    teacher_logits_BK
        Teacher similarity to its own K nearest texts, divided by the same temperature.
    nearest_BK
        Which columns of ``student_logits_BC`` those K texts are, int64.
    keep_B
        True for images to use; None uses all. The paper's filter drops those the teacher gets wrong.

    Returns
    -------
    Tensor
        Scalar: mean over kept images. If none is kept, zero with zero gradient.

    Raises
    ------
    ValueError
        If ``teacher_logits_BK`` and ``nearest_BK`` differ in shape.
    """
    if teacher_logits_BK.shape != nearest_BK.shape:
        raise ValueError(
            f"teacher_logits_BK {tuple(teacher_logits_BK.shape)} and nearest_BK "
            f"{tuple(nearest_BK.shape)} must have one shape"
        )
    student_BK = student_logits_BC.float().gather(1, nearest_BK).log_softmax(dim=1)
    teacher_BK = teacher_logits_BK.float().log_softmax(dim=1)
    kl_B = F.kl_div(student_BK, teacher_BK, reduction="none", log_target=True).sum(dim=1)
    if keep_B is None:
        return _mean(kl_B, weight_B)
    # A weighted mean instead of kl_B[keep_B].mean(): no wait for the device to count, and the mean of
    # no rows, which is NaN in the original code, is zero.
    kept_B = keep_B.to(kl_B.dtype)
    return (kl_B * (kept_B if weight_B is None else kept_B * weight_B)).sum() / kept_B.sum().clamp(min=1)


def standardized(logits_BK: Tensor) -> Tensor:
    """Return logits less their mean, by their deviation, over K (arXiv 2403.01427, equation 12)."""
    deviation, mean = torch.std_mean(logits_BK.float(), dim=1, correction=0, keepdim=True)
    return (logits_BK - mean) / deviation.clamp(min=1e-6)


def caption_loss(similarity_BB: Tensor, labels_B: Tensor, *, weight_B: Tensor | None = None) -> Tensor:
    """L-cap: each student row finds its own image's caption in the batch, without temperature.

    ``similarity_BB`` is ``unit_student @ unit_caption.T``: row = student, column = caption. Pairs of one
    class by ``labels_B`` other than an image's own caption are masked out; images without a label (-1) are of
    no class, and so of none with another.
    """
    own = torch.eye(len(labels_B), dtype=torch.bool, device=labels_B.device)
    same_class = (labels_B[:, None] == labels_B[None, :]) & (labels_B >= 0)
    logits = similarity_BB.float().masked_fill(same_class & ~own, MASKED_OUT)
    return _own(logits, torch.arange(len(labels_B), device=labels_B.device), weight_B)


def teacher_weights(entropy_BT: Tensor, labels_B: Tensor, *, judges_T: Sequence[bool]) -> Tensor:
    """Return how much each of T teachers counts of each image, [B, T] float32, 1 on average over T.

    Confidence-aware multi-teacher distillation (Zhang et al., arXiv 2201.00007): of J teachers that judge,
    ``(1 - softmax_J(entropy)) / (J - 1)`` each, where ``entropy_BT`` is a teacher's cross-entropy with the
    image's label, -log of the probability that it gives it. Of two that is either's probability by the sum of
    both. It is multiplied by J here, so that teachers that are sure alike count as without it. Images without
    a label (-1), teachers that do not judge (``judges_T`` false) and one that judges alone count 1.
    """
    weights = torch.ones_like(entropy_BT, dtype=torch.float32)
    own = [i for i, judges in enumerate(judges_T) if judges]
    if len(own) > 1:
        share = (1 - entropy_BT[:, own].float().softmax(dim=1)) * (len(own) / (len(own) - 1))
        weights[:, own] = torch.where((labels_B >= 0)[:, None], share, weights[:, own])
    return weights


def asymmetric_loss(
    scores: Tensor,
    targets: Tensor,
    *,
    gamma_neg: float = 4,
    gamma_pos: float = 1,
    clip: float = 0.05,
    bias: Tensor | float | None = None,
) -> Tensor:
    """Asymmetric loss for multi-label classification (arXiv 2009.14119, equations 4 to 6).

    Parameters
    ----------
    scores
        Probabilities [B, C] in 0..1.
    targets
        Multi-hot [B, C].
    gamma_neg, gamma_pos
        Focusing of negatives and of positives. The focusing weight carries no gradient.
    clip
        Probability by which negatives are shifted, so that easy ones count nothing.
    bias
        Scalar added to the scores, which are then clamped to 0..1. A learned b goes in as ``tanh(b)``.

    Returns
    -------
    Tensor
        Scalar: minus the sum over classes and images, divided by B.
    """
    scores, targets = scores.float(), targets.float()
    if bias is not None:
        scores = (scores + bias).clamp(0, 1)
    negatives = (1 - scores + clip).clamp(max=1) if clip > 0 else 1 - scores
    log_likelihood = targets * scores.clamp(min=1e-8).log() + (1 - targets) * negatives.clamp(min=1e-8).log()
    if gamma_neg > 0 or gamma_pos > 0:
        with torch.no_grad():
            likelihood = scores * targets + negatives * (1 - targets)
            weight = (1 - likelihood) ** (gamma_pos * targets + gamma_neg * (1 - targets))
        log_likelihood = log_likelihood * weight
    return -log_likelihood.sum() / len(scores)
