"""Nearest texts: in the step, or kept.

The k nearest of so many texts. "In the step" is what a step of training does for a batch: unit rows, a matrix
product, torch.topk. "Kept" is reading the same of random rows that the cache keeps, mapped, which costs stage
1 a search and the disk 8 bytes a text. "The student's own" are the student's cosines with those texts and
their gradient, which each step computes anyway. Then the search of stage 1, a batch's worth: by FAISS's exact
inner product, and by torch in blocks of images. "Same" is the share of texts that both give.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.turns import Row, alone, median_ratios, medians, seconds_in_turn
from cache.runtime.devices import choose_device
from cache.store import neighbours
from cache.store.hdf5_columns import map_columns, write_columns
from cache.store.mapped_arrays import MappedRows
from distill.losses import classification_loss
from distill.objective import nearest_texts, text_cosines

BLOCK = 1024
OPTIONS = {
    "texts": [1000, 5000, 20_000, 50_000],
    **{"batch_size": 256, "embed_dim": 768, "k": 256, "images": 1024, "rows": 20_000, "threads": 1},
    "device": "cpu",  # of what torch does; FAISS takes a GPU where it can
}
STEP, KEPT, STUDENT, FAISS, TORCH = "in the step", "kept", "the student's own", "FAISS", "torch top-k"
COLUMNS = {
    "texts": "{:,}",
    **{STEP: "{:.3g} ms", KEPT: "{:.3g} ms", STUDENT: "{:.3g} ms"},
    **{FAISS: "{:.3g} ms", TORCH: "{:.3g} ms", "torch / FAISS": "{:.2f}", "same": "{:.2%}"},
}


def by_torch(
    images: NDArray[np.float32], texts: NDArray[np.float32], k: int, device: torch.device
) -> NDArray[np.int64]:
    """Return the k nearest texts of every image by torch, best first."""
    rows, unit = (F.normalize(torch.from_numpy(both).to(device)) for both in (images, texts))
    found = [(block @ unit.T).topk(k, dim=1).indices for block in rows.split(BLOCK)]
    return torch.cat(found).cpu().numpy()


@contextmanager
def kept_rows(rows: int, k: int) -> Iterator[tuple[MappedRows, MappedRows]]:
    """Yield the neighbours of so many images, as the cache keeps them."""
    rng, forms = np.random.default_rng(0), {"nearest": ("i", (2,)), "similarity": ("f", (2,))}
    order = rng.permutation(rows)
    with tempfile.TemporaryDirectory() as folder:
        nearest = rng.integers(0, 2**15, (rows, k)).astype(np.int32)
        write_columns(Path(folder) / "x.h5", {"nearest": nearest, "similarity": nearest / np.float32(2**15)})
        mapped = map_columns(Path(folder) / "x.h5", forms)
        yield MappedRows([mapped["nearest"]], order), MappedRows([mapped["similarity"]], order)


def student_step(student: Tensor, text: Tensor, labels: Tensor) -> None:
    """Compute what a student's own cosines cost, forwards and backwards."""
    loss = classification_loss(text_cosines(student.requires_grad_(), text) / 0.07, labels)
    loss.backward()  # type: ignore[no-untyped-call]


def waited(device: torch.device, take: Callable[[], Any]) -> Callable[[], Any]:
    """Return a call that ends when a GPU has done what it began."""

    def whole() -> Any:
        value = take()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return value

    return whole


def of_texts(args: argparse.Namespace, count: int) -> tuple[Row, Any]:
    """Let all ways take turns for so many texts, in this process."""
    torch.set_num_threads(args.threads)
    rng, size = np.random.default_rng(0), (args.batch_size, args.embed_dim)
    texts = rng.standard_normal((count, args.embed_dim), dtype=np.float32)
    images = rng.standard_normal((args.images, args.embed_dim), dtype=np.float32)
    k, device = min(args.k, count), choose_device(args.device)
    text = torch.from_numpy(texts).to(device)
    teacher, student = (
        torch.from_numpy(rng.standard_normal(size, dtype=np.float32)).to(device) for _ in range(2)
    )
    labels = torch.from_numpy(rng.integers(0, count, args.batch_size)).to(device)
    with kept_rows(args.rows, k) as stored:

        def read() -> list[Tensor]:
            chosen = rng.integers(0, args.rows, args.batch_size)
            nearest, similarity = (torch.from_numpy(column[chosen]).to(device) for column in stored)
            return [nearest.long(), similarity]

        ways: dict[str, Callable[[], Any]] = {
            STEP: waited(device, lambda: nearest_texts(F.normalize(teacher), F.normalize(text), k)),
            KEPT: read,
            STUDENT: waited(device, partial(student_step, student, text, labels)),
            FAISS: partial(neighbours.nearest_texts, images, texts, k),
            TORCH: partial(by_torch, images, texts, k, device),
        }
        seconds_in_turn(ways, 1)
        rounds = seconds_in_turn(ways, args.rounds)
    same = (np.sort(ways[FAISS]()[0], axis=1) == np.sort(ways[TORCH](), axis=1)).mean()
    ratio = median_ratios(rounds, FAISS)[TORCH]
    share = args.batch_size / args.images
    ms = {
        name: 1e3 * each * (share if name in (FAISS, TORCH) else 1) for name, each in medians(rounds).items()
    }
    return {"texts": count, **ms, "torch / FAISS": ratio, "same": float(same)}, rounds


def measure(args: argparse.Namespace) -> tuple[list[Row], Any]:
    """Measure every number of texts in a process of its own, which has so many threads."""
    os.environ["OMP_NUM_THREADS"] = str(args.threads)  # FAISS asks for it when it is loaded
    measured = [alone(args, of_texts, args, count) for count in args.texts]
    return [row for row, _ in measured], [rounds for _, rounds in measured]
