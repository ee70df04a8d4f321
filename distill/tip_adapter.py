"""Few-shot retrieval without training, in the style of Tip-Adapter (arXiv 2207.09519)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def retrieval_logits(
    student: Tensor, text: Tensor, support: Tensor, *, alpha: float = 1.0, beta: float = 5.5
) -> Tensor:
    """Return ``s T' + alpha * sum_m exp(-beta (1 - s.u_cm))``, [B, C]: plain cosine plus the support term.

    ``student`` are image embeddings [B, D], ``text`` class texts' [C, D], both raw; ``support`` unit rows of
    the teacher's embeddings of M support images a class, [C, M, D].
    """
    unit_student, unit_text = F.normalize(student.float(), dim=1), F.normalize(text.float(), dim=1)
    affinity = torch.einsum("bd,cmd->bcm", unit_student, support.float())
    return unit_student @ unit_text.T + alpha * torch.exp(-beta * (1 - affinity)).sum(dim=2)
