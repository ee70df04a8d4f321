"""Images of the pool that are nearly those of a test, by the teacher's rows: another size, a crop."""

from __future__ import annotations

import numpy as np

from cache.reader import EmbeddingCache
from cache.runtime.errors import some_of
from cache.store.neighbours import ROWS_AT_ONCE, nearest_rows
from cache.store.split_rows import SplitRows

# By CLIP ViT-B/32 of Flowers-102 the nearest training photo of a test photo, a flower of the same kind, is at
# 0.94 (median), and of 1.1% above this: pictures of one plant at one moment.
NEAR = 0.98
TESTS = ("id_test", "ood_test")
NAMED = 3


def near_duplicates(cache: EmbeddingCache) -> list[str]:
    """Return a line on the images of a cache's pool that are nearly test images; none where there are none.

    Rows are compared in blocks, and of each image of the pool one truth value is kept. With very many pairs
    those are looked at that lie in the same corner of the space, which near ones do but for a few.
    """
    if "pool" not in cache.split_names:
        return []
    pool = cache.split("pool")
    near, pairs = np.zeros(len(pool), dtype=bool), list[str]()
    for name in TESTS:
        if name in cache.split_names:
            pairs += _compare(pool, cache.split(name), near)
    if not near.any():
        return []
    some = some_of(pairs, NAMED, of=int(near.sum()))
    return [f"pool: {int(near.sum()):,} images are nearly test images (cosine above {NEAR}): {some}"]


def _compare(pool: SplitRows, test: SplitRows, near: np.ndarray) -> list[str]:
    """Set ``near`` for the rows of the pool that lie near one of a test; name some that were not set yet."""
    pairs: list[str] = []
    for first in range(0, len(test), ROWS_AT_ONCE):
        among = np.asarray(test.embeddings[first : first + ROWS_AT_ONCE])
        for start, nearest, cosine in nearest_rows(pool.embeddings, among):
            new = np.flatnonzero((cosine > NEAR) & ~near[start : start + len(cosine)])
            near[start + new] = True
            for row in new[: NAMED - len(pairs)].tolist() if len(pairs) < NAMED else ():
                names = pool.keys[start + row], test.keys[first + int(nearest[row])]
                pairs.append(f"pool/{names[0]} and {test.name}/{names[1]} ({cosine[row]:.3f})")
    return pairs
