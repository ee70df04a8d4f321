"""Caches with a pool: rows without labels, beside the labelled ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from conftest import EMBED_DIM, ID_CLASSES

from cache import EmbeddingCache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.sources.folder_listing import FolderRoot
from cache.sources.image_folder import ImageSample
from cache.store.journal import JournalWriter
from cache.store.manifest import Manifest
from cache.store.row_group import claim_group
from cache.store.webdataset import write_tar_group
from tests.helpers.row_groups import save_index
from tests.helpers.tar_caches import keys_of


def import_pool_cache(out, *, labelled=("train", "id_test"), pool=5, per_class=2):
    """Import rows of the ID classes in some splits, and of a pool."""
    rng = np.random.default_rng(0)
    keys = [f"{split}/{name}/{i}.jpg" for split in labelled for name in ID_CLASSES for i in range(per_class)]
    keys += [f"pool/found/{i}.jpg" for i in range(pool)]
    texts = rng.normal(size=(len(ID_CLASSES), EMBED_DIM))
    bank = ImportedTexts(name="labels", classes=list(ID_CLASSES), embeddings=texts)
    rows = rng.normal(size=(len(keys), EMBED_DIM)).astype("float32")
    import_embeddings(out, Imported(keys=keys, embeddings=rows, texts=[bank], dtype="float32"))
    return EmbeddingCache.open(out)


def add_unlabelled(cache, photos, split="pool"):
    """Add the pictures of a folder to a split of a cache of tars, without labels."""
    manifest = Manifest.load(cache)
    root = FolderRoot(root=str(photos), depth=1)
    samples = [ImageSample(key=f"{path.parent.name}/{path.name}", of=root) for path in photos.glob("*/*.jpg")]
    rows = np.random.default_rng(0).normal(size=(len(samples), manifest.embed_dim))
    keys = replace(keys_of(samples, split), labels=[()] * len(samples))
    columns = {"image_embedding": rows.astype(manifest.spec.dtype)}
    JournalWriter(cache).add(*write_tar_group(cache, claim_group(cache, split), keys, columns, samples))
    replace(manifest, splits={split: (), **manifest.splits}).save(cache)
    save_index(cache)
    return EmbeddingCache.open(cache)
