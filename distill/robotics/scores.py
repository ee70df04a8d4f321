"""Embeddings and pairs of texts -> a score for every object. Pure functions.

A pair is a positive text (the object is there) and a negative one. Shape letters: 2 = the pair, B = episodes,
L = locations, C = objects, D = embedding size.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pair_logits(embedding_BD: Tensor, text_2CD: Tensor, *, temperature: float) -> Tensor:
    """Return cosines with both texts of every object, divided by temperature, [2, B, C] float32."""
    unit_rows, unit_text = _unit(embedding_BD), _unit(text_2CD)
    return torch.einsum("bd,pcd->pbc", unit_rows, unit_text) / temperature


def local_pair_logits(located_BLD: Tensor, text_2CD: Tensor, *, temperature: float) -> Tensor:
    """Return the aggregated cosines of all locations, divided by temperature, [2, B, C] float32.

    A cosine counts with its softmax over the locations at the same temperature (DualCoOp, arXiv 2206.09541,
    equation 3).
    """
    cosines_2BCL = _unit(text_2CD).unsqueeze(1) @ _unit(located_BLD).transpose(1, 2)
    return aggregated(cosines_2BCL, temperature=temperature) / temperature


def aggregated(values_2BCL: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Return sum_L softmax_L(value / temperature) * value, [2, B, C]."""
    return ((values_2BCL / temperature).softmax(dim=-1) * values_2BCL).sum(dim=-1)


def closed_set_logits(outputs: Tensor, columns_C: Tensor) -> Tensor:
    """Return the closed-set student's logits [2, B, C] of some of its A objects.

    ``outputs`` are [B, 2A], the positive half first; [B, L, 2A] of locations are aggregated.
    """
    pairs = outputs.float().unflatten(-1, (2, -1))[..., columns_C]
    if pairs.dim() == 3:
        return pairs.transpose(0, 1)
    return aggregated(pairs.permute(2, 0, 3, 1))


def probabilities(logits_2BC: Tensor) -> Tensor:
    """Return the softmax over each pair, its positive side, [B, C] in 0..1."""
    return logits_2BC.softmax(dim=0)[0]


def margins(logits_2BC: Tensor) -> Tensor:
    """Return positive less negative logits [B, C]: the probability is their sigmoid, not yet rounded."""
    return logits_2BC[0] - logits_2BC[1]


def scores(probability_BC: Tensor, score_bias: Tensor) -> Tensor:
    """Return scores with the learnt bias: probability plus tanh(b), clamped to 0..1."""
    return (probability_BC + torch.tanh(score_bias)).clamp(0, 1)


def _unit(rows: Tensor) -> Tensor:
    return F.normalize(rows.float(), dim=-1)
