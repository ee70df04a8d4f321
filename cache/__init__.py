"""Stage 1: run the teacher once and keep what it said. Imports nothing of distill.

The way of the data, a room a step; each names its files::

    runtime                   how a program behaves; knows nothing of images
    sources                   what is embedded: photos, episodes, their classes and texts
    prepare                   makes data before stage 1: splits, descriptions, captions
    store                     what lies on the disk
    reader                    EmbeddingCache, which stage 2 reads
    changed_images            what image files hold now, beside what their rows were made from
    teacher                   the only importers of open_clip
    build                     sources + teacher -> store
    maintain                  verify, repair, convert, import

``EmbeddingCache.open(path)`` is what most need of it.
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
