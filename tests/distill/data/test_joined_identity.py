"""The identity of images that are joined to rows: of the images alone, however the rows lie."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from conftest import write_image
from helpers.row_groups import TEACHER, WIDTH, row_of, save_index

from cache import EmbeddingCache
from cache.changed_images import contents_of
from cache.sources.data import open_data
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import DIGEST
from cache.store.manifest import Manifest
from cache.store.row_group import GroupKeys, claim_group, write_group
from cache.store.spec import CacheSpec
from distill.data.identity_reader import IdentityReader, bytes_of_rows, digest_of_column, split_identity

CLASSES = ("apple", "pear", "plum")


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "ood_test"):
        for name in CLASSES:
            for i in range(4):
                write_image(tmp_path / "photos" / split / name / f"{i}.jpg", (9, 9, 9), rng, side=8)
    return open_data([tmp_path / "photos"])


def add_rows(cache, split, samples, labels=None):
    """Write a row group of some images, as they are now."""
    identities = [sample.identity() for sample in samples]
    keys = GroupKeys(
        split=split,
        keys=[sample.key for sample in samples],
        labels=labels or [sample.labels for sample in samples],
        content=np.array([list(bytes.fromhex(content)) for content, _, _ in identities], dtype=np.uint8),
        bytes=np.array([size for _, size, _ in identities]),
        mtime_ns=np.array([when for _, _, when in identities]),
    )
    rows = np.stack([row_of(sample.key) for sample in samples])
    lines = write_group(cache, claim_group(cache, split), keys, {"image_embedding": {"embedding": rows}})
    JournalWriter(cache).add(*lines)


def made_of(path, groups):
    """Return the reader of a cache of groups of samples, by split."""
    path.mkdir()
    for split, lists in groups.items():
        for samples in lists:
            add_rows(path, split, samples)
    classes = dict.fromkeys(groups, CLASSES)
    Manifest(spec=CacheSpec(teacher=TEACHER), embed_dim=WIDTH, splits=classes, complete=True).save(path)
    save_index(path)
    return EmbeddingCache.open(path)


def plain(source):
    """The identity of all images of a source that is joined to nothing."""
    return split_identity(source, contents_of(source.all()))


def test_images_are_the_same_however_their_rows_are_grouped_and_with_or_without_rows(folder, tmp_path):
    train, ood = (folder.split(name) for name in ("train", "ood_test"))
    one = made_of(tmp_path / "one", {"train": [train.all()], "ood_test": [ood.all()]})
    some = made_of(
        tmp_path / "some", {"train": [train.all()[5:], train.all()[:5]], "ood_test": [ood.all()[3:7]]}
    )
    none = made_of(tmp_path / "none", {"train": [[sample] for sample in train.all()]})
    for cache in (one, some, none):
        identities = IdentityReader(cache=cache, folder=folder)
        assert identities.split("train") == plain(train)
        assert identities.split("ood_test") == plain(ood)
        assert identities.joined("train").read == {}


def test_rows_of_images_that_are_gone_and_images_without_a_row_do_not_count_in_training(folder, tmp_path):
    train = folder.split("train")
    cache = made_of(tmp_path / "cache", {"train": [train.all()[:7], train.all()[7:11]]})
    gone, new = train.all()[2], train.all()[11]
    (folder.path / "train" / gone.key).unlink()
    left = IdentityReader(cache=cache, folder=open_data([folder.path]))
    assert left.split("train").images == 10
    (folder.path / "train" / new.key).unlink()
    with_row = open_data([folder.path]).split("train")
    assert left.split("train") == plain(with_row)
    assert len(with_row) == 10


def test_an_image_counts_with_the_labels_of_its_source_not_of_its_row(folder, tmp_path):
    train = folder.split("train")
    cache = made_of(tmp_path / "cache", {"ood_test": [folder.split("ood_test").all()]})
    labels = [("apple",) for _ in train.all()]
    add_rows(cache.path, "train", train.all(), labels)
    replace(cache.manifest, splits={**cache.manifest.splits, "train": CLASSES}).save(cache.path)
    identities = IdentityReader(cache=EmbeddingCache.open(cache.path), folder=folder)
    assert identities.cache.split("train").labels.tolist() == [0] * len(train)
    assert identities.split("train") == plain(train)


def test_rows_have_one_digest_whether_lines_tell_it_or_the_rows_do(folder, tmp_path):
    train = folder.split("train").all()
    cache = made_of(tmp_path / "cache", {"train": [train[:5], train[5:6], train[6:]]})
    rows = cache.split("train")

    def digest(some):
        read = []
        own = digest_of_column(
            rows,
            "image_embedding",
            rows.find([sample.key for sample in some]),
            lambda at: read.append(len(at)) or bytes_of_rows(rows.embeddings, at),
        )
        return own, sum(read)

    told, none = digest(train)
    assert none == 0
    some, four = digest(train[2:])
    assert four == 3
    for path in (cache.path / "journal").glob("*.jsonl"):
        path.unlink()
    journal = cache.journal
    for line in journal.lines():
        getattr(line, "about", {}).pop(DIGEST, None)
        JournalWriter(cache.path).add(line)
    rows = EmbeddingCache.open(cache.path).split("train")
    assert Journal.load(cache.path).groups("train")[0].digest_of("image_embedding") == ""
    assert digest(train) == (told, len(train))
    assert digest(train[2:]) == (some, len(train) - 2)
