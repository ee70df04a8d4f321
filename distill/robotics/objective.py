"""The robotics losses, added up: asymmetric L-cls, and L-mse and L-im-cst as everywhere else."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from distill.config import LossConfig, RoboticsConfig
from distill.losses import asymmetric_loss
from distill.objective import distillation_objective


def episode_objective(
    probability_BC: Tensor,
    labels_BC: Tensor,
    score_bias: Tensor,
    config: LossConfig,
    robotics: RoboticsConfig,
    *,
    student_BD: Tensor | None = None,
    teacher_BD: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return every loss that is switched on, and their weighted sum ``total``, in float32.

    ``probability_BC`` is the softmax over each object's pair of texts, its positive side; ``labels_BC`` which
    objects are there, 0 and 1. ``score_bias`` is the learnt b, a scalar: tanh(b) is added to the
    probabilities, which are then clamped to 0..1. ``student_BD`` is the student's global embedding,
    ``teacher_BD`` the teacher's of the main camera, raw; left out for the closed-set student.
    """
    terms: dict[str, Tensor] = {}
    if student_BD is not None and teacher_BD is not None:
        of_images = replace(config, cls=0.0)
        nothing = torch.empty(0, device=student_BD.device)
        terms = distillation_objective(student_BD, teacher_BD, nothing, labels_BC, of_images)
    if config.cls or student_BD is None:
        weight = config.cls if student_BD is not None else 1.0
        cls = asymmetric_loss(
            probability_BC,
            labels_BC,
            gamma_neg=robotics.gamma_neg,
            gamma_pos=robotics.gamma_pos,
            clip=robotics.clip,
            bias=torch.tanh(score_bias),
        )
        rest = terms.pop("total", None)
        total = weight * cls if rest is None else weight * cls + rest
        terms = {"cls": cls, **terms, "total": total}
    return terms
