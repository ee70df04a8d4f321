"""What the journal tells of rows: their digests, and those of the values of columns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from helpers.row_groups import add_group, group_keys, make_rows, row_of

from cache import EmbeddingCache
from cache.store.digests import NONE, digest_of_values
from cache.store.hdf5_columns import texts
from cache.store.journal import Journal, JournalWriter
from cache.store.journal_lines import RemovedRows

KEYS = [f"{name}/{i}.jpg" for name in "abc" for i in range(7)]


@pytest.fixture
def cache(tmp_path):
    make_rows(tmp_path / "cache", {"train": [KEYS[:8], KEYS[8:9], KEYS[9:]]})
    return tmp_path / "cache"


@pytest.mark.parametrize("some", [[], KEYS, KEYS[:3], KEYS[3:], KEYS[5:14], KEYS[8:9]])
def test_some_rows_have_the_digests_of_their_keys_content_and_labels(cache, some):
    rows = EmbeddingCache.open(cache).split("train")
    expected = group_keys(some).digests() if some else NONE
    assert rows.digests_of(rows.find(some)) == expected


def test_removed_rows_are_in_no_digest(cache):
    gone = [KEYS[8 + 1], KEYS[-1]]
    rows = EmbeddingCache.open(cache).split("train")
    (group,), numbers = np.unique(rows.group_of(rows.find(gone))[0]), rows.group_of(rows.find(gone))[1]
    digests = rows.digests_of(rows.find(gone))
    name = rows.groups.groups[group].name
    JournalWriter(cache).add(
        RemovedRows(
            group=name,
            rows=tuple(numbers.tolist()),
            digests=dict(
                zip(
                    ("keys", "content", "labels"),
                    (digests.keys, digests.content, digests.labels),
                    strict=True,
                )
            ),
        )
    )
    left = EmbeddingCache.open(cache).split("train")
    kept = [key for key in KEYS if key not in gone]
    assert left.digests == group_keys(kept).digests()
    assert left.digests_of(left.find(kept[4:])) == group_keys(kept[4:]).digests()


def test_the_line_of_a_column_tells_the_digest_of_its_values(cache):
    add_group(
        cache,
        ["z/0", "z/1"],
        caption_embedding={"embedding": np.ones((2, 8), np.float16), "caption": texts(["one", "two"])},
    )
    groups = Journal.load(cache).groups("train")
    expected = digest_of_values(KEYS[:8], [row_of(key).tobytes() for key in KEYS[:8]])
    assert groups[0].digest_of("image_embedding") == expected
    assert groups[3].digest_of("caption_embedding") == digest_of_values(["z/0", "z/1"], [b"one", b"two"])
    assert groups[0].digest_of("caption_embedding") == ""
    # Remembered of other keys, as a copied line would have it, it is none.
    moved = replace(groups[0], lines={**groups[0].lines, "keys": groups[1].keys})
    assert moved.digest_of("image_embedding") == ""
