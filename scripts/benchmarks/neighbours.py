"""Nearest texts: FAISS and torch.

The k nearest of so many texts of every image: by FAISS's exact inner product, as the cache computes them,
and by a matrix product and torch.topk over blocks of images. "Same" is the share of texts that both give.
"""

from __future__ import annotations

import argparse
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from benchmarks.turns import Row, median_ratios, medians, seconds_in_turn
from cache.store.neighbours import nearest_texts

BLOCK = 1024
OPTIONS = {"texts": [1000, 10_000, 100_000], "images": 1000, "embed_dim": 768, "k": 256}
COLUMNS = {
    "texts": "{:,}",
    "FAISS": "{:.2f} s",
    "torch top-k": "{:.2f} s",
    "torch / FAISS": "{:.2f}",
    "same": "{:.2%}",
}


def by_torch(images: NDArray[np.float32], texts: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """Return the k nearest texts of every image by torch, best first."""
    rows, unit = F.normalize(torch.from_numpy(images)), F.normalize(torch.from_numpy(texts))
    return torch.cat([(block @ unit.T).topk(k, dim=1).indices for block in rows.split(BLOCK)]).numpy()


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Let both take turns for every number of texts."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((args.images, args.embed_dim), dtype=np.float32)
    rows, details = [], []
    for count in args.texts:
        texts = rng.standard_normal((count, args.embed_dim), dtype=np.float32)
        k = min(args.k, count)
        ways = {
            "FAISS": partial(nearest_texts, images, texts, k),
            "torch top-k": partial(by_torch, images, texts, k),
        }
        rounds = seconds_in_turn(ways, args.rounds)
        same = (np.sort(ways["FAISS"]()[0], axis=1) == np.sort(ways["torch top-k"](), axis=1)).mean()
        ratio = median_ratios(rounds, "FAISS")["torch top-k"]
        rows.append({"texts": count, **medians(rounds), "torch / FAISS": ratio, "same": float(same)})
        details.append(rounds)
    return rows, details
