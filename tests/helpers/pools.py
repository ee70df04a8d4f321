"""Caches with a pool: rows without labels, beside the labelled ones."""

from __future__ import annotations

import numpy as np
from conftest import EMBED_DIM, ID_CLASSES

from cache import EmbeddingCache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported_banks import ImportedTexts


def import_pool_cache(out, *, labelled=("train", "id_test"), pool=5, per_class=2):
    """Import rows of the ID classes in some splits, and of a pool."""
    rng = np.random.default_rng(0)
    keys = [f"{split}/{name}/{i}.jpg" for split in labelled for name in ID_CLASSES for i in range(per_class)]
    keys += [f"pool/found/{i}.jpg" for i in range(pool)]
    texts = rng.normal(size=(len(ID_CLASSES), EMBED_DIM))
    bank = ImportedTexts(name="labels", classes=list(ID_CLASSES), embeddings=texts)
    rows = rng.normal(size=(len(keys), EMBED_DIM)).astype("float32")
    import_embeddings(out, keys=keys, embeddings=rows, texts=[bank], dtype="float32")
    return EmbeddingCache.open(out)
