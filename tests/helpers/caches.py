"""Commands that make caches, and all that a cache says of its images."""

from __future__ import annotations

import numpy as np

from cache import EmbeddingCache
from cache.build.from_folder import FeatureOptions, cache_features


def stage_1_words(photos, out, teacher_dir, *more):
    words = ["cache-features", photos, "--out", out, "--model", f"local-dir:{teacher_dir}", *more]
    return [str(word) for word in words]


def builder(photos, teacher_dir, root, **usual):
    """A function (name, options) that caches ``photos`` below ``root`` with the ``usual`` options or others."""

    def build(name="cache", **options):
        given = {"device": "cpu", "workers": 0, "dtype": "float32", **usual, **options}
        cache_features(photos, root / name, FeatureOptions(model=f"local-dir:{teacher_dir}", **given))
        return EmbeddingCache.open(root / name)

    return build


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


def read_back(cache):
    """Everything that a cache with views and pixels holds, by name."""
    held = {}
    for name in cache.split_names:
        rows = cache.split(name)
        held |= {
            f"{name}/keys": np.array(rows.keys),
            f"{name}/labels": rows.labels,
            f"{name}/embeddings": np.asarray(rows.embeddings),
        }
        nearest, similarity = cache.neighbours(name, "labels", 5)
        held |= {f"{name}/nearest": np.asarray(nearest), f"{name}/similarity": np.asarray(similarity)}
    for name in cache.bank_names:
        held[f"texts/{name}"] = cache.text_bank(name).embeddings
    train = cache.split("train")
    some = np.arange(len(train.keys))
    held["support_views"] = cache.support_views("train", train.keys)
    held["crop_views"] = cache.crop_views("train").embeddings(some, some % 2)
    held["boxes"], held["flips"] = cache.crop_views("train").crops(some, some % 2)
    held["pixels"] = cache.pixels("train", side=36).images(some)
    return held


def views_of(cache):
    """Every view of the training images in the order of their rows: boxes, flips, embeddings."""
    stored = cache.crop_views("train")
    rows = np.repeat(np.arange(stored.count), stored.views)
    views = np.tile(np.arange(stored.views), stored.count)
    boxes, flips = stored.crops(rows, views)
    shape = (stored.count, stored.views)
    return (
        boxes.reshape(*shape, 4),
        flips.reshape(shape),
        stored.embeddings(rows, views).reshape(*shape, -1),
    )
