"""Stage 1: run the teacher once and keep what it said.

The way of the data, one room a step: ``sources`` lists images and texts, ``teacher`` (the only importer of
open_clip) embeds both, ``store`` is what then lies on the disk, ``build`` runs it all and can be killed
anywhere, and ``maintain`` mends it. ``reader`` gives the result to stage 2: ``EmbeddingCache.open(path)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.runtime.errors import UserError

if TYPE_CHECKING:
    from cache.reader import EmbeddingCache

__all__ = ["EmbeddingCache", "UserError"]


def __getattr__(name: str) -> object:
    # Looked up late, so that the command line's --help does not wait for numpy and h5py.
    if name == "EmbeddingCache":
        from cache.reader import EmbeddingCache

        return EmbeddingCache
    raise AttributeError(f"module 'cache' has no attribute {name!r}")
