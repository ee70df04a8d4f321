"""How the images of a folder lie in chunks, and what changes of them when files do."""

from __future__ import annotations

import os
import pickle
import shutil
import sys

import numpy as np
import pytest

from cache.sources.data import open_data
from cache.sources.key_chunks import KeyChunks
from cache.sources.key_hashes import hash_of_key, hashes_of


@pytest.fixture
def folder(tmp_path):
    """400 files of two classes, of which none is a picture."""
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for number in range(200):
            (tmp_path / "train" / name / f"{number}.jpg").write_text(name * number)
    return tmp_path


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("cache.sources.key_chunks.MOST", 32)


def source_of(folder):
    return open_data([folder]).split("train")


def chunk_of_each(source):
    return {one.key: chunk.id for chunk in source.chunks() for one in source.list(chunk.id)}


def identities(source):
    return {chunk.id: chunk.identity for chunk in source.chunks()}


def changed(before, after):
    return {chunk for chunk in before | after if before.get(chunk) != after.get(chunk)}


@pytest.mark.usefixtures("small")
def test_chunks_are_about_as_large_as_each_other_and_none_is_too_large(folder):
    rows = [sum(1 for _ in source_of(folder).list(chunk.id)) for chunk in source_of(folder).chunks()]
    assert sum(rows) == 400
    assert 400 / 32 <= len(rows) <= 32
    assert max(rows) <= 32


@pytest.mark.usefixtures("small")
def test_a_new_file_moves_no_other_between_chunks(folder):
    before = chunk_of_each(source_of(folder))
    listed = source_of(folder)
    full = {chunk.id for chunk in listed.chunks() if len(list(listed.list(chunk.id))) == 32}
    (folder / "train" / "c").mkdir()
    for name in ("a/new", "b/new", "c/new"):
        (folder / "train" / f"{name}.jpg").write_text("new")
        if chunk_of_new(before, f"{name}.jpg") in full:
            pytest.fail("choose another name: this chunk is full, and would become two")
    after = chunk_of_each(source_of(folder))
    assert {key: after[key] for key in before} == before
    assert len(after) == len(before) + 3


def chunk_of_new(chunks, key):
    bits = f"{hash_of_key(key):064b}"
    return next(chunk for chunk in set(chunks.values()) if bits.startswith(chunk.removesuffix("*")))


@pytest.mark.usefixtures("small")
def test_a_chunk_that_overflows_is_two_and_no_other_changes(folder):
    before, count = identities(source_of(folder)), 0
    victim = min(before)
    while identities(source_of(folder)).keys() == before.keys():
        count += 1
        key = f"a/more{count}.jpg"
        if f"{hash_of_key(key):064b}".startswith(victim.removesuffix("*")):
            (folder / "train" / key).write_text("more")
        assert count < 10_000
    after = identities(source_of(folder))
    bits = victim.removesuffix("*")
    assert changed(before, after) == {victim, f"{bits}0*", f"{bits}1*"}


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda path: os.utime(path, ns=(1, 1)), "a/7.jpg"),
        (lambda path: path.write_text("longer than it was"), "b/3.jpg"),
        (lambda path: path.unlink(), "b/100.jpg"),
        (lambda path: path.write_text("added"), "b/added.jpg"),
    ],
    ids=["touched", "written", "removed", "added"],
)
def test_identity_changes_of_the_chunk_of_a_changed_file_alone(folder, change, key):
    before, chunks = identities(source_of(folder)), chunk_of_each(source_of(folder))
    change(folder / "train" / key)
    assert changed(before, identities(source_of(folder))) == {chunk_of_new(chunks, key)}


@pytest.mark.usefixtures("small")
def test_chunks_do_not_depend_on_the_order_in_which_files_were_made(folder, tmp_path):
    for path in sorted((folder / "train").rglob("*.jpg"), reverse=True):
        to = tmp_path / "copy" / path.relative_to(folder)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)
    assert source_of(tmp_path / "copy").chunks() == source_of(folder).chunks()


def test_a_file_that_went_since_the_scan_is_not_listed(folder):
    source = source_of(folder)
    (folder / "train" / "a" / "5.jpg").unlink()
    listed = [one.key for chunk in source.chunks() for one in source.list(chunk.id)]
    assert len(listed) == 399
    assert "a/5.jpg" not in listed


def test_what_is_added_is_in_the_next_scan_alone(folder):
    source = source_of(folder)
    assert len(source) == 400
    (folder / "train" / "a" / "new.jpg").write_text("new")
    assert len(source) == len(pickle.loads(pickle.dumps(source))) == 400
    assert len(source_of(folder)) == 401


def test_copies_of_a_source_list_its_folder_once_a_process(folder):
    source = source_of(folder)
    assert pickle.loads(pickle.dumps(source)).listing is source.listing


def test_a_sample_is_its_key_and_a_root_that_all_share(folder):
    samples = source_of(folder).all()
    assert len({id(sample.of) for sample in samples}) == 1
    assert not hasattr(samples[0], "__dict__")
    assert sys.getsizeof(samples[0]) <= 48


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have UTF-8 names alone")
def test_a_name_that_is_no_utf8_is_listed(folder):
    with open(os.fsencode(folder / "train" / "a") + b"/\xff.jpg", "wb"):
        pass
    (key,) = {sample.key for sample in source_of(folder).all()} - {
        f"{c}/{i}.jpg" for c in "ab" for i in range(200)
    }
    assert key == f"a/{os.fsdecode(bytes([255]))}.jpg"
    assert key in chunk_of_each(source_of(folder))


def test_keys_of_one_hash_are_in_one_chunk(monkeypatch):
    monkeypatch.setattr("cache.sources.key_chunks.MOST", 1)
    hashes = np.concatenate([hashes_of(["a"])] * 3)
    chunks = KeyChunks.of(hashes)
    assert [len(chunks.keys(chunk)) for chunk in chunks.ids()] == [3]


def test_no_keys_are_no_chunks():
    assert KeyChunks.of(hashes_of([])).chunks(np.zeros((0, 2), dtype=np.int64)) == []
