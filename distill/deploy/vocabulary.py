"""The vocabulary of a shipped model: words that it can name, and their rows, small enough to go along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as saved

from cache.runtime.atomic_files import replacing
from distill.deploy.class_sets import ClassSet
from distill.deploy.info import undamaged

WORDS, ROWS = "vocabulary.txt", "vocabulary.safetensors"
# Of the words, where they are those that come with the package.
LICENSE = "vocabulary.LICENSE"
COMPONENTS = 128
# Of them those along which rows differ the most; of the others half a byte says enough.
IN_8_BITS = 32
EVENLY = 0.3
LARGEST_CODE = 127
# Of 4 bits, whose step is that which loses least of a normal distribution (Max 1960), in its deviations.
LEAST_SHORT, STEP = -8, 0.335
ARRAYS = ("codes", "short", "scale", "basis", "mean")
# 1 GB of rows: what a damaged file says of their size is not believed.
MOST_NUMBERS = 2**28


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """N words and their rows [N, D] float32: the product with an image's unit row is its cosine.

    A folder keeps the rows less their mean, on K axes: of the first L as ``codes`` int8 [N, L], of the others
    as ``short`` uint8 [N, (K - L) / 2], four bits each, of which the low ones are the first; ``scale`` [K],
    ``basis`` int8 [K, D] and ``mean`` [D]. A row is ``all_codes * scale @ basis + mean``, and no unit row
    again: made one, it would be the longer the more of it was lost. The axes are the principal ones, not of
    the rows, but of what images see of them (weighted PCA, as in reduced-rank regression): an error counts by
    how far it moves cosines with images, of which a share ``EVENLY`` may be anywhere.
    """

    words: tuple[str, ...]
    rows: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or len(self.rows) != len(self.words) or not self.words:
            raise ValueError(f"{len(self.words)} words have rows {self.rows.shape}")

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def classes(self) -> ClassSet:
        """The words as classes of no folder."""
        return ClassSet(labels=self.words, classes=("",) * len(self), texts=self.words, embeddings=self.rows)

    def save(
        self, folder: Path, *, images: NDArray[np.float32] | None = None, components: int = COMPONENTS
    ) -> None:
        """Write it into a model's folder, each file whole or not at all; ``images`` are unit rows [M, D]."""
        text = "".join(f"{word}\n" for word in self.words)
        arrays = compressed(self.rows, images=images, components=components)
        content = saved(arrays, metadata={"words_sha256": sha256(text.encode()).hexdigest()})
        with replacing(folder / ROWS) as temporary:
            temporary.write_bytes(content)
        with replacing(folder / WORDS) as temporary:
            temporary.write_bytes(text.encode())

    @classmethod
    def load(cls, folder: Path, *, embed_dim: int | None = None) -> Self | None:
        """Read what :meth:`save` wrote; None where a folder has none.

        UserError if it is damaged, of other words, or of another ``embed_dim``.
        """
        words_file, path = folder / WORDS, folder / ROWS
        if not words_file.exists() and not path.exists():
            return None
        with undamaged(words_file, what="the vocabulary "):
            content = words_file.read_bytes()
            words = content.decode().removesuffix("\n").split("\n")
        with undamaged(path, what="the vocabulary "):
            try:
                with safe_open(path, framework="numpy") as file:
                    about = file.metadata() or {}
                    arrays = {name: file.get_tensor(name) for name in ARRAYS}
            except SafetensorError as error:
                raise ValueError(str(error)) from error
            if about.get("words_sha256") != sha256(content).hexdigest():
                raise ValueError(f"it is of other words than {WORDS}")
            check_arrays(arrays, words=len(words), embed_dim=embed_dim)
            return cls(words=tuple(words), rows=restored(arrays))


def compressed(
    rows: NDArray[np.float32], *, images: NDArray[np.float32] | None = None, components: int = COMPONENTS
) -> dict[str, NDArray[Any]]:
    """Return rows [N, D] as the ``ARRAYS`` of :class:`Vocabulary`."""
    mean = rows.mean(axis=0, dtype=np.float64)
    root, back = _square_root(images, rows.shape[1])
    seen = (rows - mean) @ root
    _, axes = np.linalg.eigh(seen.T @ seen)
    basis = axes[:, ::-1].T[: min(components, len(rows))]
    # An axis has no sign of its own: the largest number of each is positive, on whatever machine.
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=1)[:, None], axis=1)
    basis = basis * np.sign(largest)
    parts = seen @ basis.T
    long = min(IN_8_BITS, len(basis)) + max(len(basis) - IN_8_BITS, 0) % 2  # the others are two to a byte
    step = np.maximum(np.abs(parts).max(axis=0) / LARGEST_CODE, 1e-12)
    step[long:] = np.maximum(parts[:, long:].std(axis=0) * STEP, 1e-12)
    codes = np.round(parts / step)
    short = np.clip(codes[:, long:], LEAST_SHORT, -LEAST_SHORT - 1).astype(np.int8) - LEAST_SHORT
    plain = basis @ back
    unit = np.maximum(np.abs(plain).max(axis=1), 1e-12) / LARGEST_CODE
    return {
        "codes": codes[:, :long].astype(np.int8),
        "short": (short[:, ::2] | short[:, 1::2] << 4).astype(np.uint8),
        "scale": (step * unit).astype(np.float32),
        "basis": np.round(plain / unit[:, None]).astype(np.int8),
        "mean": mean.astype(np.float32),
    }


def _square_root(
    images: NDArray[np.float32] | None, size: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the square root [D, D] of the second moment of images, some anywhere, and its inverse."""
    if images is None or not len(images):
        return np.eye(size), np.eye(size)
    moment = images.T.astype(np.float64) @ images
    moment = (1 - EVENLY) * moment * (size / np.trace(moment)) + EVENLY * np.eye(size)
    values, vectors = np.linalg.eigh(moment)
    root = np.sqrt(values)
    return vectors * root @ vectors.T, vectors / root @ vectors.T


def all_codes(arrays: dict[str, NDArray[Any]]) -> NDArray[np.int8]:
    """Return the codes [N, K] of what :func:`compressed` returned, whatever bits they are kept in."""
    short = arrays["short"]
    pairs = np.stack([short & 15, short >> 4], axis=-1).astype(np.int8) + LEAST_SHORT
    return np.concatenate([arrays["codes"], pairs.reshape(len(short), -1)], axis=1, dtype=np.int8)


def restored(arrays: dict[str, NDArray[Any]]) -> NDArray[np.float32]:
    """Return the rows [N, D] of what :func:`compressed` returned."""
    basis = arrays["basis"].astype(np.float32) * arrays["scale"][:, None]
    rows: NDArray[np.float32] = all_codes(arrays).astype(np.float32) @ basis + arrays["mean"]
    return rows


def check_arrays(arrays: dict[str, NDArray[Any]], *, words: int, embed_dim: int | None = None) -> None:
    """Raise a ValueError for arrays that :func:`compressed` does not make of so many words."""
    codes, short, scale, basis, mean = (arrays[name] for name in ARRAYS)
    kinds = [array.dtype.name for array in (codes, short, scale, basis, mean)]
    if kinds != ["int8", "uint8", "float32", "int8", "float32"]:
        raise ValueError(f"its arrays are {', '.join(kinds)}")
    size = embed_dim if embed_dim is not None else mean.size
    shapes: Sequence[tuple[int, ...]] = [array.shape for array in (codes, short, scale, basis, mean)]
    axes = codes.shape[-1] + 2 * short.shape[-1] if codes.ndim == short.ndim == 2 else 0
    wanted = [(words, codes.shape[-1]), (words, short.shape[-1]), (axes,), (axes, size), (size,)]
    if not axes or shapes != wanted:
        raise ValueError(f"its arrays are {shapes} for {words:,} words of {size} numbers")
    if words * size > MOST_NUMBERS:
        raise ValueError(f"it has {words:,} words of {size:,} numbers")
    if not all(np.isfinite(array).all() for array in (scale, mean)):
        raise ValueError("a number in it is not finite")
