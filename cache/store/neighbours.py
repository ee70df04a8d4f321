"""The k nearest class texts of every image, exactly, through FAISS. The only importer of faiss."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from cache.runtime.atomic_files import replacing
from cache.runtime.errors import reason_of
from cache.runtime.hdf5_safety import open_hdf5
from cache.store.checksums import append_checksum, matches_appended_checksum
from cache.store.hdf5_columns import mapped_column, read_text, write_column, write_text
from cache.store.mapped_arrays import MappedRows
from cache.store.read_errors import READ_ERRORS

Neighbours = tuple[NDArray[np.int32], NDArray[np.float32]]
StoredNeighbours = tuple[MappedRows, MappedRows]
ROWS_AT_ONCE = 65_536
# How many nearest texts of an image are kept unless another number is asked for.
NEAREST = 256


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
        [N, k] int32 columns of ``texts`` and [N, k] float32 cosines, best first.
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
    return np.concatenate([block[1] for block in blocks]).astype(np.int32), similarity


def flavour() -> str:
    """Return which FAISS this is, and on what it searches."""
    gpus = getattr(faiss, "get_num_gpus", lambda: 0)()
    return f"FAISS {faiss.__version__}, {f'on {gpus} GPUs' if gpus else 'on the CPU'}"


def _index(texts: NDArray[np.float32]) -> Any:
    index: Any = faiss.IndexFlatIP(texts.shape[1])
    # The CPU build has no such function at all; the GPU build says 0 where there is no device.
    if getattr(faiss, "get_num_gpus", lambda: 0)() > 0 and hasattr(faiss, "index_cpu_to_all_gpus"):
        index = faiss.index_cpu_to_all_gpus(index)
    index.add(texts)
    return index


def save_neighbours(path: Path, neighbours: Neighbours, *, made_from: str) -> None:
    """Write ``neighbours/SPLIT--BANK.h5``; ``made_from`` says of which rows and texts they are."""
    nearest, similarity = neighbours
    with replacing(path) as temporary, open_hdf5(temporary, "w") as file:
        write_column(file, "nearest", nearest)
        write_column(file, "similarity", similarity)
        write_text(file, "made_from", made_from)
        file.close()
        # Not of the rows alone: no manifest has a checksum of this file.
        append_checksum(temporary)


def load_neighbours(path: Path, *, made_from: str, k: int, rows: int) -> StoredNeighbours | None:
    """Map the stored neighbours of so many rows, each checked when it is read.

    None when there are none or too few, or they are of other rows or texts.
    """
    try:
        with open_hdf5(path) as file:
            if read_text(file, "made_from") != made_from:
                return None
            nearest = mapped_column(path, file, "nearest", kinds="i", ndim=(2,))
            similarity = mapped_column(path, file, "similarity", kinds="f", ndim=(2,))
            fits = nearest.shape == similarity.shape and len(nearest) == rows and nearest.shape[1] >= k
            return (MappedRows.of(nearest, width=k), MappedRows.of(similarity, width=k)) if fits else None
    except READ_ERRORS:  # computed anew, which costs little
        return None


def problem_of(path: Path, *, made_from: str | None) -> str:
    """Return what is wrong with a stored file, '' for nothing.

    ``made_from`` names the rows and texts that it should be of, None where the cache has none such.
    """
    try:
        if not matches_appended_checksum(path):
            return "it differs from its checksum"
        with open_hdf5(path) as file:
            return "" if read_text(file, "made_from") == made_from else "it is of other rows or texts"
    except READ_ERRORS as error:
        return f"it cannot be read ({reason_of(error)})"
