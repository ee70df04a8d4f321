"""Caches in the format webdataset without a teacher, by the store's own functions."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from cache.store.journal import JournalWriter
from cache.store.manifest import Manifest
from cache.store.row_group import GroupKeys, claim_group
from cache.store.spec import CacheSpec
from cache.store.webdataset import write_tar_group
from tests.helpers.row_groups import TEACHER, WIDTH, row_of, save_index


@dataclass(frozen=True)
class Photo:
    """A picture's file below a folder, as a source would give it."""

    key: str
    root: Path
    caption: str | None = None
    views = ("image",)

    @property
    def labels(self):
        return (self.key.partition("/")[0],)

    @property
    def path(self):
        return self.root / self.key

    @property
    def where(self):
        return str(self.path)


def save_photo(path, number, side=12):
    """Save a picture that is a function of a number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def photo_keys(root, keys):
    """Save a picture of every key that has none yet."""
    for key in keys:
        if not (root / key).exists():
            save_photo(root / key, int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big"))
    return list(keys)


def keys_of(photos, split="train"):
    """What the rows of some pictures are of."""
    raw = [photo.path.read_bytes() for photo in photos]
    content = b"".join(hashlib.sha256(one).digest() for one in raw)
    return GroupKeys(
        split=split,
        keys=[photo.key for photo in photos],
        labels=[photo.labels for photo in photos],
        content=np.frombuffer(content, np.uint8).reshape(-1, 32).copy(),
        bytes=np.array([len(one) for one in raw]),
        mtime_ns=np.zeros(len(raw), dtype=np.int64),
    )


def add_tar_group(cache, photos, split="train", captions=None, columns=None, **more):
    """Write a row group of some pictures as a tar, and list it."""
    embeddings = np.stack([row_of(photo.key) for photo in photos])
    name = claim_group(cache, split)
    lines = write_tar_group(
        cache,
        name,
        keys_of(photos, split),
        {"image_embedding": embeddings, **(columns or {})},
        photos,
        captions=captions,
        **more,
    )
    JournalWriter(cache).add(*lines)
    return name


def make_tar_cache(cache, root, groups, *, captioned=False):
    """Write a finished cache: ``groups`` have lists of keys by split, whose pictures lie in ``root/SPLIT``."""
    cache.mkdir(parents=True, exist_ok=True)
    classes = {
        split: tuple(sorted({key.partition("/")[0] for group in lists for key in group}))
        for split, lists in groups.items()
    }
    manifest = Manifest(spec=CacheSpec(teacher=TEACHER, format="webdataset"), embed_dim=WIDTH, splits=classes)
    manifest.save(cache)
    for split, lists in groups.items():
        for keys in lists:
            photos = [Photo(key, root / split) for key in photo_keys(root / split, keys)]
            words = [f"a photo of {photo.key}" for photo in photos] if captioned else None
            columns = (
                {"caption_embedding": np.stack([row_of(f"t{p.key}") for p in photos])} if captioned else {}
            )
            add_tar_group(cache, photos, split, words, columns)
    manifest = replace(manifest, complete=True)
    manifest.save(cache)
    save_index(cache)
    return manifest
