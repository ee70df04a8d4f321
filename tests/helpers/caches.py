"""Commands that make caches, and all that a cache says of its images."""

from __future__ import annotations

from cache import EmbeddingCache


def stage_1(photos, out, teacher_dir, *more):
    return ["cache-features", photos, "--out", out, "--model", f"local-dir:{teacher_dir}", *more]


def rows_of(path):
    """Everything a cache says of its images, by key."""
    cache = EmbeddingCache.open(path)
    by_split = {}
    for name in cache.split_names:
        rows = cache.split(name)
        by_split[name] = {
            key: (rows.labels[i], rows.embeddings[i].tobytes()) for key, i in rows.position.items()
        }
    return by_split
