"""A source beside the rows that a cache has of it: joined by key, and told apart by size, time and content."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
import pytest

from cache.build.changes import Changes, class_changes
from cache.build.split_changes import compare_split
from cache.build.split_listing import list_split
from cache.build.stored_rows import StoredRows
from cache.build.touched_files import TouchedFiles
from cache.sources.key_hashes import hashes_of
from cache.sources.samples import Chunk, Listed
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import SkippedImage
from cache.store.row_group import GroupKeys, claim_group, write_group


@dataclass
class Scene:
    """What an image shows, and of which time it is."""

    labels: tuple[str, ...] = ("apple",)
    content: bytes = b"red"
    mtime_ns: int = 1


@dataclass
class Scenes:
    """A source of scenes by key, in two chunks."""

    scenes: dict[str, Scene]
    split: str = "train"
    read: list[str] = field(default_factory=list)

    def chunks(self):
        return [Chunk(id=id, identity="") for id in ("even", "odd")]

    def _keys(self, chunk):
        return [key for key in sorted(self.scenes) if (len(key) % 2 == 0) == (chunk == "even")]

    def list(self, chunk):
        return [
            Listed(key, one.labels, len(one.content), one.mtime_ns)
            for key in self._keys(chunk)
            for one in [self.scenes[key]]
        ]

    def samples(self, keys):
        self.read += keys
        for key in keys:
            yield Shown(self.scenes[key].content)


@dataclass
class Shown:
    """A sample that is looked at for its content alone."""

    content: bytes

    def identity(self):
        return sha256(self.content).hexdigest(), len(self.content), 0


def add_rows(cache, scenes):
    """Write scenes as one more row group."""
    keys = GroupKeys(
        split="train",
        keys=[*scenes],
        labels=[one.labels for one in scenes.values()],
        content=np.stack([np.frombuffer(sha256(one.content).digest(), np.uint8) for one in scenes.values()]),
        bytes=np.array([len(one.content) for one in scenes.values()]),
        mtime_ns=np.array([one.mtime_ns for one in scenes.values()]),
    )
    name = claim_group(cache, "train")
    JournalWriter(cache).add(*write_group(cache, name, keys, {}))


def compared(cache, source, skipped=None, touched=None):
    """What changed, with the lines that say so journaled; and the keys of what is missing."""
    stored = StoredRows(cache, Journal.load(cache).groups("train"))
    listing = list_split(source, source.chunks())
    changes = compare_split(source, listing, stored, skipped or {}, touched or TouchedFiles.empty())
    JournalWriter(cache).add(*stored.removing(changes.removed), *stored.restoring(changes.restored))
    hashes = hashes_of([*source.scenes])
    missing = {
        key for key, one in zip(source.scenes, hashes, strict=True) if one in listing.hashes[changes.missing]
    }
    return changes, missing


@pytest.fixture
def scenes():
    return {f"{'a' * n}.jpg": Scene(mtime_ns=n, content=bytes([n])) for n in range(1, 9)}


def test_what_is_as_it_was_is_not_read(tmp_path, scenes):
    add_rows(tmp_path, scenes)
    source = Scenes(scenes)
    changes, missing = compared(tmp_path, source)
    assert (missing, len(changes.removed), source.read) == (set(), 0, [])


def test_a_file_of_another_time_is_read_once(tmp_path, scenes):
    add_rows(tmp_path, scenes)
    touched = {key: Scene(content=one.content, mtime_ns=99) for key, one in scenes.items()}
    source = Scenes(touched)
    changes, missing = compared(tmp_path, source)
    assert (missing, sorted(source.read)) == (set(), sorted(scenes))
    changes.touched.save(tmp_path, "train")
    again = Scenes(touched)
    compared(tmp_path, again, touched=TouchedFiles.load(tmp_path, "train"))
    assert again.read == []


def test_new_gone_and_replaced_images_are_told_apart(tmp_path, scenes):
    add_rows(tmp_path, dict(list(scenes.items())[:6]))
    first, second, *_ = scenes
    del scenes[first]
    scenes[second] = Scene(content=b"green", mtime_ns=7)
    changes, missing = compared(tmp_path, Scenes(scenes))
    assert missing == {second, "aaaaaaa.jpg", "aaaaaaaa.jpg"}
    assert (changes.added, changes.gone, changes.replaced, changes.relabelled) == (2, 1, 1, 0)
    assert Journal.load(tmp_path).rows("train") == 4


def test_an_image_of_other_classes_is_embedded_again_and_one_that_has_its_old_ones_back_is_not(tmp_path):
    two = {"a.jpg": Scene(labels=("apple", "plum")), "bb.jpg": Scene(labels=())}
    add_rows(tmp_path, two)
    same = Scenes({"a.jpg": Scene(labels=("plum", "apple")), "bb.jpg": Scene(labels=())})
    assert compared(tmp_path, same)[1] == set()
    other = Scenes({"a.jpg": Scene(labels=("plum",)), "bb.jpg": Scene(labels=("apple",))})
    changes, missing = compared(tmp_path, other)
    assert (missing, changes.relabelled) == ({"a.jpg", "bb.jpg"}, 2)
    changes, missing = compared(tmp_path, Scenes(two))
    assert (missing, len(changes.restored), Journal.load(tmp_path).rows("train")) == (set(), 2, 2)


def test_of_several_removed_rows_that_fit_one_is_seen_again(tmp_path, scenes):
    add_rows(tmp_path, scenes)
    compared(tmp_path, Scenes({}))
    add_rows(tmp_path, scenes)
    compared(tmp_path, Scenes({}))
    assert Journal.load(tmp_path).rows("train") == 0
    changes, missing = compared(tmp_path, Scenes(scenes))
    assert (missing, len(changes.restored)) == (set(), 8)
    assert Journal.load(tmp_path).rows("train") == 8


def test_rows_of_one_key_twice_are_seen_once(tmp_path, scenes):
    add_rows(tmp_path, scenes)
    add_rows(tmp_path, scenes)
    changes, missing = compared(tmp_path, Scenes(scenes))
    assert (missing, changes.gone, Journal.load(tmp_path).rows("train")) == (set(), 0, 8)


def test_an_unreadable_image_is_left_out_until_it_changes(tmp_path, scenes):
    key = next(iter(scenes))
    bad = SkippedImage(split="train", key=key, reason="cut", bytes=1, mtime_ns=1)
    changes, missing = compared(tmp_path, Scenes(scenes), skipped={key: bad})
    assert (missing, [*changes.skipped]) == ({*scenes} - {key}, [key])
    scenes[key].mtime_ns = 2
    changes, missing = compared(tmp_path, Scenes(scenes), skipped={key: bad})
    assert (missing, [*changes.skipped]) == ({*scenes}, [])


def test_a_list_of_touched_files_that_is_none_is_forgotten(tmp_path):
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "train.touched.h5").write_bytes(b"no HDF5")
    assert len(TouchedFiles.load(tmp_path, "train").hashes) == 0


@pytest.mark.parametrize(
    ("changes", "began", "line"),
    [
        (Changes(), False, ""),
        (Changes(added=5), True, "photos is continued: 5 of 1,240 rows are to be embedded"),
        (Changes(added=12, gone=3), False, "photos changed: 12 images added, 3 removed; 5 of 1,240 rows are"),
        (Changes(gone=1, restored=2), False, "photos changed: 1 image removed, 2 back again; 5 of 1,240"),
        (
            Changes(texts=("labels (1 of 5 classes)",)),
            False,
            "photos changed: texts changed: labels (1 of 5 classes); 5 of",
        ),
        (Changes(classes_added=("kiwi",)), False, "photos changed: classes added: kiwi; 5 of 1,240 rows"),
    ],
)
def test_one_line_says_what_changed(changes, began, line):
    sentence = changes.line("photos", missing=5, rows=1240, began=began)
    assert sentence.startswith(line)
    assert bool(sentence) == bool(line)


def test_a_class_that_another_split_has_is_not_new():
    assert class_changes([("a", "b"), ("b",)], [("b",), ("a", "c")]) == (("c",), ())
