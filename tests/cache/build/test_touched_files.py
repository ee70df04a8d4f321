"""Files that were written again with the same content are remembered, and a list that is damaged is none."""

from __future__ import annotations

import numpy as np
import pytest

from cache.build.touched_files import TouchedFiles
from cache.sources.key_hashes import hashes_of

HASHES = hashes_of(["a/0.jpg", "a/1.jpg", "b/0.jpg"])
SEEN = np.array([[10, 1, -5], [20, 2, 6], [30, 3, 7]])


def test_what_was_seen_is_covered_and_a_file_that_is_other_is_not(tmp_path):
    TouchedFiles.empty().with_files(HASHES[:2], SEEN[:2]).save(tmp_path, "train")
    files = TouchedFiles.load(tmp_path, "train")
    assert files.covers(HASHES, SEEN).tolist() == [True, True, False]
    for column in range(3):
        other = SEEN.copy()
        other[:, column] += 1
        assert not files.covers(HASHES, other).any()
    later = files.with_files(HASHES[1:], SEEN[1:] + 1)
    assert later.covers(HASHES, SEEN).tolist() == [True, False, False]
    assert later.covers(HASHES, SEEN + 1).tolist() == [False, True, True]
    assert not TouchedFiles.load(tmp_path, "id_test").covers(HASHES, SEEN).any()


@pytest.mark.parametrize("damage", [b"", b"nothing", "unsorted", "short", None])
def test_a_list_that_cannot_be_read_covers_nothing(tmp_path, damage):
    whole = TouchedFiles.empty().with_files(HASHES, SEEN)
    whole.save(tmp_path, "train")
    (path,) = (tmp_path / "index").iterdir()
    if damage is None:
        path.unlink()
    elif damage == "unsorted":
        TouchedFiles(hashes=whole.hashes[::-1], seen=whole.seen).save(tmp_path, "train")
    elif damage == "short":
        TouchedFiles(hashes=whole.hashes, seen=whole.seen[:, :2]).save(tmp_path, "train")
    else:
        path.write_bytes(damage)
    assert not TouchedFiles.load(tmp_path, "train").covers(HASHES, SEEN).any()
