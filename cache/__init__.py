"""Stage 1: run the teacher once and keep what it said.

The way of the data, one file a step: ``images`` lists a folder, ``texts`` turns class names into
texts, ``teacher`` (the only importer of open_clip) embeds both, ``shards`` writes rows beside their
keys, ``manifest`` says what is complete, ``banks`` keeps the text embeddings, ``neighbours`` (the
only importer of faiss) finds every image's nearest texts, and ``build`` runs it all and can be killed
anywhere. ``reader`` gives the result to stage 2: ``EmbeddingCache.open(path)``.
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
