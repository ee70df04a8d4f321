"""Caches in the format webdataset without a teacher, by the store's own functions."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from cache.sources.data import open_data
from cache.sources.folder_listing import FolderRoot
from cache.sources.image_folder import ImageSample
from cache.store.hdf5_columns import texts
from cache.store.journal import JournalWriter
from cache.store.manifest import Manifest
from cache.store.row_group import GroupKeys, claim_group, read_keys, write_column
from cache.store.spec import CacheSpec
from cache.store.webdataset import write_tar_group
from tests.helpers.row_groups import TEACHER, WIDTH, row_of, save_index


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
    raw = [Path(photo.where).read_bytes() for photo in photos]
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
            photos = [
                ImageSample(key=key, of=FolderRoot(root=str(root / split)))
                for key in photo_keys(root / split, keys)
            ]
            words = [f"a photo of {photo.key}" for photo in photos] if captioned else None
            columns = (
                {"caption_embedding": np.stack([row_of(f"t{p.key}") for p in photos])} if captioned else {}
            )
            add_tar_group(cache, photos, split, words, columns)
    manifest = replace(manifest, complete=True)
    manifest.save(cache)
    save_index(cache)
    return manifest


def as_tars(cache, data, out, *, rows=5, captions="beside"):
    """Write a cache of a data folder's photos once more, as tars of so many rows; return its path.

    Its captions, where it has them, lie ``beside`` the tars, ``inside``, or are all the ``same`` there.
    """
    out.mkdir()
    spec = replace(cache.manifest.spec, format="webdataset")
    manifest = replace(cache.manifest, spec=spec, complete=False)
    manifest.save(out)
    shutil.copytree(cache.path / "texts", out / "texts")
    folder = open_data([data])
    for split in cache.split_names:
        of_split = cache.split(split)
        every = sorted(of_split.keys)
        for start in range(0, len(every), rows):
            keys = every[start : start + rows]
            _write_tar(out, list(folder.split(split).samples(keys)), of_split, captions)
    replace(manifest, complete=True).save(out)
    save_index(out)
    return out


def _write_tar(out, photos, of_split, captions):
    own, split = keys_of(photos, of_split.name), of_split.name
    at = of_split.find(own.keys)
    embeddings, caption_rows = of_split.embeddings[at], of_split.caption_embeddings
    columns = {"image_embedding": embeddings}
    if caption_rows is not None and captions != "beside":
        columns["caption_embedding"] = caption_rows[at if captions == "inside" else np.zeros_like(at)]
    name = claim_group(out, split)
    lines = write_tar_group(out, name, own, columns, photos)
    if caption_rows is not None and captions == "beside":
        order = read_keys(out, lines[-1]).keys
        column = {"embedding": caption_rows[of_split.find(order)], "caption": texts([""] * len(order))}
        lines.insert(0, write_column(out, name, "caption_embedding", column, rows=len(order)))
    JournalWriter(out).add(*lines)


def damage_tar(cache, split, number):
    """Change the middle of one tar of a cache, so that what lies there is no sample any more."""
    path = cache / f"tars/{split}-{number:05d}.tar"
    raw = bytearray(path.read_bytes())
    at = raw.index(b".json", len(raw) // 3) // 512 * 512
    raw[at : at + 512] = b"\xff" * 512
    path.write_bytes(raw)
