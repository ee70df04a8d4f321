"""Row groups are joined: the same numbers by key, in fewer files, whatever happens in between."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from dataclasses import asdict, replace

import numpy as np
import pytest
from helpers.processes import python
from helpers.row_groups import add_group, group_keys, make_rows, row_of

from cache import EmbeddingCache
from cache.maintain import compact
from cache.maintain.compact import compact_cache
from cache.maintain.group_columns import make_of
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.store.column_lines import made_from
from cache.store.hdf5_columns import BLOBS, Blobs
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import RemovedRows
from cache.store.manifest import Manifest
from cache.store.manifest_lines import ColumnSettings
from cache.store.row_group import read_keys, write_column

GROUPS = [["a/0.jpg", "a/1.jpg", "b/0.jpg"], ["b/1.jpg", "c/strange \udce9.jpg"], ["c/2.jpg"]]
SETTINGS = {"side": 2, "encoding": "jpeg"}


def remove(cache, name, rows):
    group = next(group for group in Journal.load(cache).all_groups if group.name == name)
    digests = asdict(read_keys(cache, group.keys).taken(rows).digests())
    JournalWriter(cache).add(RemovedRows(group=name, rows=tuple(rows), digests=digests))


def add_columns(cache):
    """An array and byte strings of every row, and an array of some rows alone."""
    manifest = Manifest.load(cache)
    listed = ColumnSettings(splits=("train",), settings=SETTINGS)
    replace(manifest, columns=dict.fromkeys(("pixels", "support_views"), listed)).save(cache)
    for group in Journal.load(cache).groups("train"):
        keys = read_keys(cache, group.keys).keys
        raw = Blobs([key.encode("utf-8", "surrogateescape") for key in keys])
        twice = np.stack([[row_of(key)] * 2 for key in keys])
        own = made_from(SETTINGS, group.keys)
        line = write_column(
            cache, group.name, "pixels", {"jpeg": raw, "twice": twice}, rows=len(keys), made_from=own
        )
        of = "some" + group.name
        some = np.array([len(keys) - 1], np.int32)
        views = write_column(
            cache,
            group.name,
            "support_views",
            {"row": some, "view": twice[some]},
            rows=len(keys),
            made_from=made_from(SETTINGS, group.keys, of),
            about={"of": of},
        )
        JournalWriter(cache).add(line, views)


@pytest.fixture
def cache(tmp_path):
    make_rows(tmp_path / "cache", {"train": GROUPS, "ood_test": [["z/0.jpg"], ["z/1.jpg"]]})
    add_columns(tmp_path / "cache")
    return tmp_path / "cache"


def content(cache):
    """Everything that a reader gets, by key."""
    opened = EmbeddingCache.open(cache, check=True)
    held = {}
    for name in opened.split_names:
        rows = opened.split(name)
        pixels = rows.groups.column("pixels", "jpeg", BLOBS) if name == "train" else None
        twice = rows.groups.column("pixels", "twice", ("f", (3,))) if name == "train" else None
        for i, key in enumerate(rows.keys):
            more = (bytes(pixels[i]), twice[i].tobytes()) if name == "train" else ()
            label = rows.class_names[rows.labels[i]]
            held[name, key] = (rows.embeddings[i].tobytes(), label, rows.files.content[i].tobytes(), *more)
        held[name] = rows.digests
    return held


def test_the_same_numbers_are_read_by_key_from_fewer_files(cache):
    before = content(cache)
    done = compact_cache(cache)
    assert (done.before, done.after) == (5, 2)
    assert content(cache) == before
    assert not any(check.problem for check in verify_cache(cache))
    assert [group.name for group in Journal.load(cache).all_groups] == ["train-00003", "ood_test-00002"]
    assert sorted(path.name for path in (cache / "rows").iterdir()) == ["ood_test-00002", "train-00003"]
    again = compact_cache(cache)
    assert (again.before, again.after, again.bytes) == (2, 2, 0)


def test_removed_rows_go_and_a_group_of_removed_rows_goes_whole(cache):
    remove(cache, "train-00000", [0, 2])
    remove(cache, "train-00002", [0])
    remove(cache, "ood_test-00000", [0])
    before = content(cache)
    assert len(before) == 3 + 1 + 2
    done = compact_cache(cache)
    assert (done.before, done.after) == (5, 2)
    assert done.bytes > 0
    assert content(cache) == before
    journal = Journal.load(cache)
    assert [group.rows for group in journal.all_groups] == [3, 1]
    assert not journal.removed


def test_a_column_of_some_rows_keeps_those_that_stay_at_their_new_places(cache):
    remove(cache, "train-00000", [0])
    compact_cache(cache)
    (group,) = Journal.load(cache).groups("train")
    from cache.maintain.column_files import ColumnFile

    keys, views = read_keys(cache, group.keys).keys, ColumnFile.open(cache, group.lines["support_views"])
    assert [keys[row] for row in views.rows] == ["b/0.jpg", "c/strange \udce9.jpg", "c/2.jpg"]
    for row, view in zip(views.rows.tolist(), views.datasets["view"], strict=True):
        assert view[0].tobytes() == row_of(keys[row]).tobytes()


def test_groups_that_have_other_columns_are_not_joined_and_lose_none(cache):
    add_group(cache, ["d/0.jpg"])
    compact_cache(cache)
    groups = Journal.load(cache).groups("train")
    assert [(group.rows, "pixels" in group.lines) for group in groups] == [(1, False), (6, True)]


def test_no_group_becomes_larger_than_a_group_is(cache, monkeypatch):
    monkeypatch.setattr(compact, "GROUP_ROWS", 4)
    before = content(cache)
    compact_cache(cache)
    assert [group.rows for group in Journal.load(cache).groups("train")] == [3, 3]
    assert content(cache) == before


def test_a_damaged_file_is_not_copied(cache):
    path = cache / "rows" / "train-00001" / "image_embedding.h5"
    raw = bytearray(path.read_bytes())
    raw[-1] ^= 1
    path.write_bytes(raw)
    before = sorted(path.name for path in cache.rglob("*.h5"))
    with pytest.raises(UserError, match=r"train-00001/image_embedding\.h5 differs from its checksum"):
        compact_cache(cache)
    assert sorted(path.name for path in cache.rglob("*.h5")) == before


CHILD = """
import os, signal, sys
from pathlib import Path
at = int(sys.argv[2])
steps = 0
for module, name in (("os", "fsync"), ("os", "replace"), ("os", "unlink"), ("os", "rmdir"), ("os", "mkdir")):
    def counted(*given, _whole=getattr(os, name), **named):
        global steps
        steps += 1
        if steps == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return _whole(*given, **named)
    setattr(os, name, counted)
from cache.maintain.compact import compact_cache
compact_cache(Path(sys.argv[1]))
"""


@pytest.mark.parametrize("first", [pytest.param(1, marks=pytest.mark.long), 7])
def test_killed_anywhere_the_cache_is_as_before_or_as_after(cache, tmp_path, first):
    remove(cache, "train-00000", [1])
    before, copies = content(cache), tmp_path / "copies"
    ends = []
    for step in range(first, 200, 17 if first == 7 else 1):
        shutil.rmtree(copies, ignore_errors=True)
        shutil.copytree(cache, copies)
        ended = subprocess.run([*python(), "-c", CHILD, str(copies), str(step)], check=False)
        ends.append(ended.returncode)
        assert content(copies) == before, step
        compact_cache(copies)
        assert content(copies) == before, step
        assert not any(check.problem for check in verify_cache(copies)), step
        if not ended.returncode:
            break
    assert ends[-1] == 0
    assert ends.count(-signal.SIGKILL) == len(ends) - 1 > 3


def test_the_line_that_a_joined_column_has_says_what_it_is_made_from(cache):
    compact_cache(cache)
    (group,) = Journal.load(cache).groups("train")
    assert group.lines["pixels"].made_from == made_from(SETTINGS, group.keys)
    views = group.lines["support_views"]
    assert views.made_from == made_from(SETTINGS, group.keys, views.about["of"])
    made = make_of(cache, Manifest.load(cache), group)
    assert made == {("keys", ""), ("image_embedding", ""), ("pixels", "")}
    assert group.digests == group_keys([key for keys in GROUPS for key in keys]).digests()
    assert os.path.exists(cache / "index" / "train.h5")
