"""Commands that make caches, and all that a cache says of its images."""

from __future__ import annotations

import numpy as np

from cache import EmbeddingCache


def stage_1(photos, out, teacher_dir, *more):
    return ["cache-features", photos, "--out", out, "--model", f"local-dir:{teacher_dir}", *more]


def rows_of(path):
    """Everything a cache says of its images, by key."""
    cache = EmbeddingCache.open(path)
    found = {}
    for name in cache.split_names:
        rows = cache.split(name)
        found[name] = {
            key: (rows.labels[i], rows.embeddings[i].tobytes()) for key, i in rows.position.items()
        }
    return found


def read_back(cache):
    """Everything that a cache with views and pixels holds, by name."""
    found = {}
    for name in cache.split_names:
        rows = cache.split(name)
        found |= {
            f"{name}/keys": np.array(rows.keys),
            f"{name}/labels": rows.labels,
            f"{name}/embeddings": np.asarray(rows.embeddings),
        }
        found[f"{name}/nearest"], found[f"{name}/similarity"] = cache.neighbours(name, "labels", 5)
    for name in cache.bank_names:
        found[f"texts/{name}"] = cache.text_bank(name).embeddings
    train = cache.split("train")
    some = np.arange(len(train.keys))
    found["support_views"] = cache.support_views("train", train.keys)
    found["crop_views"] = cache.crop_views("train").embeddings(some, some % 2)
    found["boxes"], found["flips"] = cache.crop_views("train").crops(some, some % 2)
    found["pixels"] = cache.pixels("train", side=36).images(some)
    return found
