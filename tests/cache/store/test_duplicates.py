"""One picture under two keys: in two splits, or under two classes; not twice in one class."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from helpers.row_groups import group_keys

from cache.store.duplicates import duplicates_of
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import RemovedRows
from cache.store.row_group import GroupKeys, claim_group, read_keys, write_group


def add(cache, split, images):
    """A row group of images: (key, classes, number of its picture, 0 for one that nobody knows)."""
    keys = [key for key, _, _ in images]
    content = np.zeros((len(keys), 32), np.uint8)
    content[:, 3] = content[:, 31] = [number for _, _, number in images]
    given = group_keys(keys, split)
    of_group = GroupKeys(
        split=split,
        keys=keys,
        labels=[classes for _, classes, _ in images],
        content=content,
        bytes=given.bytes,
        mtime_ns=given.mtime_ns,
    )
    JournalWriter(cache).add(*write_group(cache, claim_group(cache, split), of_group, {}))


def pairs(cache):
    return [str(one) for one in duplicates_of(cache, Journal.load(cache))]


def test_pictures_in_two_splits_or_under_two_classes_are_said(tmp_path):
    a, b, both = ("a",), ("b",), ("a", "b")
    add(tmp_path, "train", [("a/2", a, 1), ("a/1", a, 1), ("b/1", b, 2)])
    add(tmp_path, "train", [("b/2", b, 1), ("a/3", a, 3), ("b/3", b, 0), ("a/4", a, 0)])
    add(tmp_path, "ood_test", [("z/1", ("z",), 3), ("z/2", ("z",), 9), ("z/3", ("z",), 0)])
    add(tmp_path, "id_test", [("x", both, 7), ("y", both[::-1], 7), ("w", (), 7)])
    assert pairs(tmp_path) == [
        "train/a/1 is train/b/2",
        "id_test/w is id_test/x",
        "id_test/w is id_test/y",
        "train/a/3 is ood_test/z/1",
    ]
    group = Journal.load(tmp_path).groups("train")[1]
    digests = asdict(read_keys(tmp_path, group.keys).taken([0, 1]).digests())
    JournalWriter(tmp_path).add(RemovedRows(group=group.name, rows=(0, 1), digests=digests))
    assert pairs(tmp_path) == ["id_test/w is id_test/x", "id_test/w is id_test/y"]


def test_pictures_that_begin_alike_are_none(tmp_path):
    keys = group_keys(["a/1", "b/1"])
    keys.content[:] = 5
    keys.content[1, 31] = 6
    JournalWriter(tmp_path).add(*write_group(tmp_path, claim_group(tmp_path, "train"), keys, {}))
    assert pairs(tmp_path) == []
    assert duplicates_of(tmp_path / "nothing", Journal()) == []
