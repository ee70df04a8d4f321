"""The images without a label in a cache of tars: mixed with the others by their number."""

from __future__ import annotations

from cache import EmbeddingCache
from cache.sources.splits import POOL
from distill.config import RunConfig
from distill.data.pool import Pool, check_learnable_alone, check_pool_apart, pool_sources, takes_pool


def pool_of_tars(cache: EmbeddingCache, config: RunConfig, counts: dict[str, int]) -> Pool | None:
    """Return the pool that a run learns from, of so many images a split; None where there is none.

    UserError if an image of it is a test image, or a pool alone cannot teach what the config asks for.
    """
    if "train" not in cache.split_names or counts.get("train") == cache.journal.rows("train"):
        check_learnable_alone(config, cache)
    if not counts or not takes_pool(config):
        return None
    given = cache.manifest.sources.given if cache.manifest.sources else ()
    return Pool(
        share=sum(counts.values()) / sum(cache.journal.rows(name) for name in ("train", POOL)),
        sources=pool_sources(counts, given),
        test_images=check_pool_apart(cache, [*counts]),
    )
