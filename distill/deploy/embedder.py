"""What makes rows of pictures, and how it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.sources.decoding import PLAIN, Decoding
from cache.sources.samples import Sample
from cache.sources.source_options import AS_THEY_ARE, SourceOptions


@dataclass(frozen=True, kw_only=True)
class Embedder:
    """What makes rows of pictures, which are decoded as ``decoding`` says.

    ``prepare`` takes a sample to an array, or raises UnreadableImage; ``embed`` a stack of these to rows
    [B, ``embed_dim``], which need not be unit rows.
    """

    embed_dim: int
    prepare: Callable[[Sample], NDArray[Any]]
    embed: Callable[[NDArray[Any]], NDArray[np.float32]]
    decoding: Decoding = PLAIN


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Everything that ``distill embed`` can be told.

    ``precision`` and ``threads`` are of a model; ``checkpoint``, ``cache_dir`` and ``code`` of a run;
    ``splits`` of a cache whose own rows are written, ``teacher_model`` and ``pretrained`` name its teacher;
    ``device`` is where a student or a teacher computes.
    """

    precision: str | None = None
    threads: int = 0
    checkpoint: str = "last"
    cache_dir: Path | None = None
    code: Path | None = None
    splits: tuple[str, ...] = ()
    teacher_model: str | None = None
    pretrained: str | None = None
    device: str = "auto"
    batch_size: int = 32
    sources: SourceOptions = AS_THEY_ARE
