"""Row groups: what is written is read, whoever reads it, and in an order that the keys alone decide."""

from __future__ import annotations

import itertools
from dataclasses import replace

import h5py
import numpy as np
import pytest
from helpers.row_groups import add_group, group_keys, make_rows, row_of, save_index

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.key_hashes import hash_of_key
from cache.store.digests import Digests
from cache.store.journal import Journal
from cache.store.key_index import KeyIndex
from cache.store.row_group import KeysFile, claim_group, read_keys

FIRST = ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/strange \udce9.jpg", "c/ü.png"]
SECOND = ["a/2.jpg", "c/1.jpg"]


@pytest.fixture
def cache(tmp_path):
    make_rows(tmp_path / "cache", {"train": [FIRST, SECOND], "ood_test": [["z/0.jpg"]]})
    return tmp_path / "cache"


def test_every_row_is_found_by_its_key(cache):
    rows = EmbeddingCache.open(cache).split("train")
    assert len(rows) == 7
    assert sorted(rows.keys) == sorted([*FIRST, *SECOND])
    for key in [*FIRST, *SECOND]:
        at = rows.position[key]
        assert rows.keys[at] == key
        assert rows.embeddings[at].tobytes() == row_of(key).tobytes()
        assert rows.class_names[rows.labels[at]] == key.partition("/")[0]
        assert rows.files.content[at].tobytes() == group_keys([key]).content.tobytes()
    assert rows.find(["a/2.jpg", "no/0.jpg"]).tolist() == [rows.position["a/2.jpg"], -1]
    assert "no/0.jpg" not in rows.position


def test_the_order_of_rows_is_that_of_their_keys_hashes_however_they_are_grouped(cache, tmp_path):
    make_rows(tmp_path / "other", {"train": [[key] for key in [*SECOND, *FIRST]]})
    one, other = (EmbeddingCache.open(path).split("train") for path in (cache, tmp_path / "other"))
    expected = sorted([*FIRST, *SECOND], key=hash_of_key)
    assert list(one.keys) == list(other.keys) == expected
    assert np.array_equal(np.asarray(one.embeddings), np.asarray(other.embeddings))
    assert np.array_equal(one.labels, other.labels)
    assert one.digests == other.digests == group_keys(expected).digests() != Digests()


def test_an_index_that_is_missing_or_of_other_groups_is_made_by_the_reader(cache):
    before = list(EmbeddingCache.open(cache).split("train").keys)
    index = cache / "index" / "train.h5"
    raw = index.read_bytes()
    for damage in (None, raw[:100], b"", b"x" * 5000):
        index.unlink(missing_ok=True)
        if damage is not None:
            index.write_bytes(damage)
        assert list(EmbeddingCache.open(cache).split("train").keys) == before
    index.write_bytes(raw)
    add_group(cache, ["a/9.jpg"])
    groups = Journal.load(cache).groups("train")
    assert KeyIndex.load(cache, "train", groups) is None
    assert len(EmbeddingCache.open(cache).split("train")) == 8
    save_index(cache)
    assert KeyIndex.load(cache, "train", groups) is not None


def test_plain_h5py_reads_keys_classes_and_rows(cache):
    with h5py.File(cache / "rows" / "train-00000" / "keys.h5") as file:
        raw, offset = file["key"][:].tobytes(), file["key_offset"][:]
        keys = [raw[start:end] for start, end in itertools.pairwise(offset)]
        classes = file["class_name"][:].tobytes()
    assert keys[:3] == [b"a/0.jpg", b"a/1.jpg", b"b/0.jpg"]
    assert classes == b"abc"
    with h5py.File(cache / "rows" / "train-00000" / "image_embedding.h5") as file:
        rows = file["embedding"]
        assert rows.chunks is None
        assert rows[0].tobytes() == row_of("a/0.jpg").tobytes()


def test_no_two_writers_get_one_group(tmp_path):
    names = [claim_group(tmp_path, split) for split in ("train", "train", "ood_test", "train")]
    assert names == ["train-00000", "train-00001", "ood_test-00000", "train-00002"]


def test_labels_are_resolved_when_they_are_read(tmp_path):
    make_rows(tmp_path, {"train": [FIRST]}, classes={"train": ("new", "c", "b", "a")})
    rows = EmbeddingCache.open(tmp_path).split("train")
    assert [rows.class_names[label] for label in rows.labels] == [key.partition("/")[0] for key in rows.keys]


def test_an_image_can_have_several_labels_or_none(tmp_path):
    labels = [("cup", "banana"), (), ("cup",)]
    tmp_path.mkdir(exist_ok=True)
    make_rows(tmp_path, {}, classes={"train": ("banana", "cup")}, several=True)
    add_group(tmp_path, ["0", "1", "2"], labels=labels)
    rows = EmbeddingCache.open(tmp_path).split("train")
    by_key = dict(zip(rows.keys, rows.labels.tolist(), strict=True))
    assert by_key == {"0": [1, 1], "1": [0, 0], "2": [0, 1]}
    (group,) = Journal.load(tmp_path).groups("train")
    assert read_keys(tmp_path, group.keys).labels == labels


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("label", np.array([0, 1, 9, 0, 0], np.int32), "labels of no class"),
        ("label", np.array([0, 1], np.int32), "the journal says 5 rows"),
        ("key_hash", np.zeros(5, np.uint64), "hashes are not those"),
        ("key_offset", np.array([0, 5, 3, 9, 9, 9]), "does not divide"),
        ("content", np.zeros((5, 31), np.uint8), "the journal says 5 rows"),
        ("bytes", np.zeros(4, np.int64), "the journal says 5 rows"),
        ("class_name", np.frombuffer(b"a..c", np.uint8), "no place in a folder"),
    ],
)
def test_keys_that_are_none_are_refused_by_name(cache, name, value, message):
    path = cache / "rows" / "train-00000" / "keys.h5"
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = value
        if name == "class_name":
            del file["class_name_offset"]
            file["class_name_offset"] = np.array([0, 1, 3, 4])
    (line,) = (group.keys for group in Journal.load(cache).groups("train") if group.name == "train-00000")
    with pytest.raises(UserError, match=message):
        read_keys(cache, replace(line, bytes=path.stat().st_size))


def test_check_compares_a_file_with_its_checksum_when_it_is_first_opened(cache):
    path = cache / "rows" / "train-00001" / "image_embedding.h5"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    assert len(EmbeddingCache.open(cache).split("train").embeddings) == 7
    checked = EmbeddingCache.open(cache, check=True)
    assert len(checked.split("ood_test").embeddings) == 1
    with pytest.raises(UserError, match=r"train-00001/image_embedding.h5 differs from its checksum"):
        checked.split("train").embeddings  # noqa: B018


def test_labels_of_the_index_are_those_of_the_keys(cache):
    groups = Journal.load(cache).groups("train")
    index = KeyIndex.load(cache, "train", groups)
    made = KeyIndex.of(groups, lambda group: KeysFile(cache, group.keys))
    assert index.is_same(made)
    assert index.class_names == ("a", "b", "c")
    rows = EmbeddingCache.open(cache).split("train")
    assert [rows.class_names[label] for label in rows.labels] == [key.partition("/")[0] for key in rows.keys]
    (cache / "index" / "train.h5").unlink()
    assert np.array_equal(EmbeddingCache.open(cache).split("train").labels, rows.labels)


@pytest.mark.parametrize(
    ("name", "number"), [("row", -1), ("row", 10**6), ("label", 3), ("label", -2), ("label", 10**6)]
)
def test_an_index_of_rows_or_classes_that_are_not_there_is_made_anew(cache, name, number):
    rows = EmbeddingCache.open(cache).split("train")
    before = list(rows.keys), rows.labels.tolist(), np.asarray(rows.embeddings)
    with h5py.File(cache / "index" / "train.h5", "r+") as file:
        file[name][1] = number
    rows = EmbeddingCache.open(cache).split("train")
    assert list(rows.keys) == before[0]
    assert rows.labels.tolist() == before[1]
    assert np.array_equal(np.asarray(rows.embeddings), before[2])


def test_a_reader_that_checks_takes_no_index_on_trust(cache):
    before = EmbeddingCache.open(cache).split("train").labels.tolist()
    with h5py.File(cache / "index" / "train.h5", "r+") as file:
        file["label"][:] = 0
    assert EmbeddingCache.open(cache).split("train").labels.tolist() != before
    assert EmbeddingCache.open(cache, check=True).split("train").labels.tolist() == before
