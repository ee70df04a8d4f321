"""The k nearest class texts of every image, exactly, through FAISS. The only importer of faiss.

Stage 2 takes them from a batch's rows and the texts in the step itself. Where there are very many texts the
cache keeps them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.runtime.errors import UserError

Neighbours = tuple[NDArray[np.int32], NDArray[np.float32]]
ROWS_AT_ONCE = 65_536
# So many pairs of rows of 768 numbers are a minute of 16 cores; beyond, rows are compared with those of the
# nearest cells alone, of some hundred.
EXACT_PAIRS, CELLS = 10**10, 8
# How many nearest texts of an image are kept where no number is asked for.
NEAREST = 256
# There the step's own top k is less than a hundredth of a step of a ResNet-18 (BENCHMARKS.md, "Nearest
# texts"); kept, they are 2,056 bytes an image, where its embedding is 1,536.
PAYS_ABOVE = 20_000


def _faiss() -> Any:
    """Return FAISS, imported where it searches: most runs never do."""
    try:
        import faiss
    except ImportError as error:
        raise UserError("FAISS is not installed", fix="pip install faiss-cpu.") from error
    return faiss


def pays(texts: int) -> bool:
    """Say whether it pays to keep the nearest of so many texts, one a class, of every image."""
    return texts > PAYS_ABOVE


def kept_of(texts: int, asked: int | None) -> int:
    """Return how many nearest of so many texts are kept, 0 for none; ``asked`` None: as it pays."""
    if asked is None:
        asked = NEAREST if pays(texts) else 0
    return min(asked, texts)


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """Return rows of length 1, float32; a row of zeros stays zero."""
    rows = np.ascontiguousarray(rows, dtype=np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.asarray(rows / np.where(length > 0, length, 1), dtype=np.float32)


def nearest_texts(images: Any, texts: NDArray[Any], k: int) -> Neighbours:
    """Return the k texts of highest cosine for every image.

    Parameters
    ----------
    images
        [N, D], raw; any array whose slices are arrays.
    texts
        [C, D], raw.
    k
        How many; at most C are given.

    Returns
    -------
    nearest, similarity
        [N, k] int32 columns of ``texts`` and [N, k] float32 cosines, best first, and of equal ones the first
        text first.
    """
    k = min(k, len(texts))
    index = _index(unit_rows(texts))
    blocks = [
        index.search(unit_rows(images[start : start + ROWS_AT_ONCE]), k)
        for start in range(0, len(images), ROWS_AT_ONCE)
    ]
    if not blocks:
        return np.empty((0, k), dtype=np.int32), np.empty((0, k), dtype=np.float32)
    similarity = np.concatenate([block[0] for block in blocks])
    nearest = np.concatenate([block[1] for block in blocks]).astype(np.int32)
    # FAISS has equal ones in any order.
    tied = np.flatnonzero((similarity[:, 1:] == similarity[:, :-1]).any(axis=1))
    order = np.lexsort((nearest[tied], -similarity[tied]), axis=1)
    nearest[tied] = np.take_along_axis(nearest[tied], order, axis=1)
    return nearest, similarity


def nearest_rows(rows: Any, among: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any], NDArray[Any]]]:
    """Yield of block after block of rows [N, D] the nearest of ``among`` [M, D], raw both, by cosine.

    That is (first row of the block, which [n], cosine [n] float32). Up to :data:`EXACT_PAIRS` pairs it is the
    nearest for sure; beyond, the nearest of those in the cells around.
    """
    units = unit_rows(among)
    index = _index(units) if len(rows) * len(units) <= EXACT_PAIRS else _cells(units)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        cosine, nearest = index.search(unit_rows(rows[start : start + ROWS_AT_ONCE]), 1)
        yield start, nearest[:, 0], cosine[:, 0]


def _cells(rows: NDArray[np.float32]) -> Any:
    faiss = _faiss()
    count = max(1, int(2 * len(rows) ** 0.5))
    coarse = faiss.IndexFlatIP(rows.shape[1])
    index: Any = faiss.IndexIVFFlat(coarse, rows.shape[1], count, faiss.METRIC_INNER_PRODUCT)
    index.train(rows)
    index.add(rows)
    index.nprobe = min(count, CELLS)
    return index


def flavour() -> str:
    """Return which FAISS this is, and on what it searches."""
    faiss = _faiss()
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    return f"FAISS {faiss.__version__}, {f'on {gpus} GPUs' if gpus else 'on the CPU'}"


def _index(texts: NDArray[np.float32]) -> Any:
    faiss = _faiss()
    index: Any = faiss.IndexFlatIP(texts.shape[1])
    # The CPU build has no such function at all; the GPU build says 0 where there is no device.
    if getattr(faiss, "get_num_gpus", lambda: 0)() > 0 and hasattr(faiss, "index_cpu_to_all_gpus"):
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(texts)
    return index
