from __future__ import annotations

from hashlib import sha256

import pytest

from cache.store.digests import NONE, Digests

ROWS = [("a/0", b"0" * 32, ("a",)), ("a/1", b"1" * 32, ("a", "b")), ("c/\udce9", b"2" * 32, ())]


def of(rows):
    return Digests.of(*zip(*rows, strict=True)) if rows else NONE


def test_digests_add_up_in_any_grouping_and_order():
    assert of(ROWS[:1]) + of(ROWS[1:]) == of(ROWS) == of(ROWS[::-1])
    assert of(ROWS) - of(ROWS[1:]) == of(ROWS[:1])
    assert of(ROWS) - of(ROWS) == NONE
    assert of([*ROWS, ROWS[0]]) != of(ROWS)


def test_a_digest_is_the_sum_of_the_hashes_of_its_rows():
    expected = sum(int.from_bytes(sha256(key.encode()).digest(), "big") for key in ("a/0", "a/1"))
    assert int(of(ROWS[:2]).keys, 16) == expected % 2**256
    content = sum(
        int.from_bytes(sha256(key.encode() + b"\0" + own).digest(), "big") for key, own, _ in ROWS[:2]
    )
    assert int(of(ROWS[:2]).content, 16) == content % 2**256


def test_each_digest_tells_its_own_change_apart():
    key, content, labels = ROWS[0]
    before = of(ROWS[:1])
    assert of([(key, b"9" * 32, labels)]).content != before.content
    assert of([(key, b"9" * 32, labels)]).keys == before.keys
    assert of([(key, content, ("z",))]).labels != before.labels
    assert of([("other", content, labels)]).keys != before.keys


def test_what_is_no_digest_is_refused():
    with pytest.raises(ValueError, match="content is no digest"):
        Digests(content="xyz")
