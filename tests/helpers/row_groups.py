"""Row groups and whole caches without a teacher, by the store's own functions."""

from __future__ import annotations

import numpy as np

from cache.store.journal import Journal, JournalWriter
from cache.store.key_index import KeyIndex
from cache.store.manifest import Manifest
from cache.store.row_group import UNKNOWN, GroupKeys, claim_group, write_group
from cache.store.spec import CacheSpec, TeacherSpec
from cache.store.split_rows import SplitGroups

TEACHER = TeacherSpec(
    model="tiny",
    pretrained="here",
    architecture="tiny",
    weights_sha256="0" * 64,
    tokenizer="",
    preprocessing="model",
    image_size=(32, 32),
    mean=(0.5,),
    std=(0.5,),
    interpolation="bicubic",
    resize_mode="shortest",
    fill_color=0,
    precision="float32",
)
WIDTH = 8


def group_keys(keys, split="train", labels=None):
    """The keys of a group whose images are of the class that their keys begin with."""
    return GroupKeys(
        split=split,
        keys=keys,
        labels=labels or [(key.partition("/")[0],) for key in keys],
        content=np.frombuffer(
            b"".join(key.encode("utf-8", "surrogateescape").ljust(32, b".")[:32] for key in keys) or UNKNOWN,
            np.uint8,
        )
        .reshape(-1, 32)[: len(keys)]
        .copy(),
        bytes=np.arange(len(keys)) + 100,
        mtime_ns=np.arange(len(keys)) + 10**18,
    )


def row_of(key, width=WIDTH):
    """The row of a key, a function of it alone."""
    seed = int.from_bytes(key.encode("utf-8", "surrogateescape")[-8:], "big")
    return np.random.default_rng(seed).standard_normal(width).astype(np.float16)


def add_group(cache, keys, split="train", writer="main", labels=None, **more):
    """Write a row group of some keys and list it; ``more`` are further columns."""
    of_group = group_keys(keys, split, labels)
    columns = {"image_embedding": {"embedding": np.stack([row_of(key) for key in keys])}, **more}
    name = claim_group(cache, split)
    JournalWriter(cache, writer).add(*write_group(cache, name, of_group, columns))
    return name


def make_rows(cache, groups, classes=None, *, several=False):
    """Write a finished cache: ``groups`` have lists of keys by split."""
    cache.mkdir(parents=True, exist_ok=True)
    classes = classes or {
        split: tuple(sorted({key.partition("/")[0] for group in lists for key in group}))
        for split, lists in groups.items()
    }
    for split, lists in groups.items():
        for keys in lists:
            add_group(cache, keys, split)
    manifest = Manifest(
        spec=CacheSpec(teacher=TEACHER),
        embed_dim=WIDTH,
        splits=classes,
        several_labels=several,
        complete=True,
    )
    manifest.save(cache)
    save_index(cache)
    return manifest


def save_index(cache):
    journal = Journal.load(cache)
    for split in journal.splits:
        groups = journal.groups(split)
        opened = SplitGroups(cache, split, groups, lambda line: None)
        KeyIndex.of(groups, opened.keys_of).save(cache, split, groups)
