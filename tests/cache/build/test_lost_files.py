"""What a kill or a hand has left in a cache: files without lines go, lines without files are dropped."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.row_groups import add_group, make_rows

from cache.build.lost_files import drop_lost_files, remove_unlisted
from cache.store.journal import Journal
from cache.store.manifest import Manifest

CAPTIONS = {"caption_embedding": {"embedding": np.ones((1, 8), np.float16)}}


@pytest.fixture
def cache(tmp_path):
    """Three row groups, the last of which has captions."""
    make_rows(tmp_path / "cache", {"train": [["a/0.jpg", "b/0.jpg"], ["a/1.jpg"]]})
    add_group(tmp_path / "cache", ["b/2.jpg"], **CAPTIONS)
    return tmp_path / "cache"


def files_in(cache):
    return sorted(str(path.relative_to(cache)) for path in (cache / "rows").rglob("*"))


def groups_of(journal):
    return {group.name: set(group.lines) for group in journal.groups("train")}


def test_a_whole_cache_keeps_every_file_and_line(cache):
    before, journal = files_in(cache), Journal.load(cache)
    groups = groups_of(journal)
    assert groups_of(drop_lost_files(journal, cache)) == groups
    remove_unlisted(cache, Manifest.load(cache), journal)
    assert files_in(cache) == before


@pytest.mark.parametrize("file", ["keys", "image_embedding"])
@pytest.mark.parametrize("is_cut", [False, True])
def test_a_row_group_without_its_keys_or_embeddings_is_none(cache, file, is_cut):
    path = cache / f"rows/train-00001/{file}.h5"
    path.write_bytes(path.read_bytes()[:-1]) if is_cut else path.unlink()
    journal = drop_lost_files(Journal.load(cache), cache)
    assert [group.name for group in journal.groups("train")] == ["train-00000", "train-00002"]
    remove_unlisted(cache, Manifest.load(cache), journal)
    assert not (cache / "rows/train-00001").exists()


def test_a_lost_column_is_dropped_alone(cache):
    (cache / "rows/train-00002/caption_embedding.h5").unlink()
    groups = groups_of(drop_lost_files(Journal.load(cache), cache))
    assert [*groups] == ["train-00000", "train-00001", "train-00002"]
    assert groups["train-00002"] == {"keys", "image_embedding"}


def test_files_without_a_line_are_removed_and_what_is_none_of_a_caches_is_left(cache):
    before = files_in(cache)
    (cache / "rows/train-00007").mkdir()
    (cache / "rows/train-00007/image_embedding.h5").write_bytes(b"killed")
    (cache / "rows/train-00000/.pixels.h5.tmp").write_bytes(b"killed")
    (cache / "tars").mkdir()
    (cache / "tars/train-00009.tar").write_bytes(b"killed")
    (cache / "rows/.DS_Store").write_bytes(b"a file browser's")
    (cache / "rows/train-00000 (copy)").mkdir()
    (cache / "rows/train-00000/notes").mkdir()
    (cache / "tars/notes").mkdir()
    remove_unlisted(cache, Manifest.load(cache), Journal.load(cache))
    left = {"rows/.DS_Store", "rows/train-00000 (copy)", "rows/train-00000/notes"}
    assert {*files_in(cache)} == {*before, *left}
    assert [path.name for path in (cache / "tars").iterdir()] == ["notes"]
    assert add_group(cache, ["c/0.jpg"]) == "train-00003"
