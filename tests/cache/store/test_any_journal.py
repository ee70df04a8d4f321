"""Anything at all in a journal: its lines, or one line that says what is wrong."""

from __future__ import annotations

import json
import tempfile
import zlib
from pathlib import Path
from typing import Any

import pytest
from helpers.fuzz import (
    FEW,
    FILE,
    value_or_line,
    with_anything_in_any_place,
    written,
)
from helpers.row_groups import make_rows
from hypothesis import example, given
from hypothesis import strategies as st

from cache.store.journal import Journal, JournalWriter, consolidate
from cache.store.journal_lines import SkippedImage


@pytest.fixture(scope="module")
def hdf5_cache(tmp_path_factory) -> Path:
    """A cache of seven rows in two groups, to be changed in a copy."""
    path = tmp_path_factory.mktemp("hdf5") / "cache"
    make_rows(path, {"train": [["a/0.jpg", "a/1.jpg", "b/0.jpg", "c/0.jpg"], ["b/1.jpg", "c/1.jpg"]]})
    return path


@FEW
@given(FILE)
@example(b'{"line":"file"}\n')
@example(b'{"line":"file","crc32":1}\n')
@example(b"[" * 100_000)
def test_a_journal_of_any_bytes_is_read_or_refused(content):
    with written(content, "main.jsonl") as path:
        (path.parent / "journal").mkdir()
        path.rename(path.parent / "journal" / path.name)
        value_or_line(lambda: Journal.load(path.parent).all_groups)


@FEW
@given(st.data())
def test_a_journal_with_anything_in_any_place_is_read_or_refused(hdf5_cache, data):
    text = (hdf5_cache / "journal" / "main.jsonl").read_text()
    tables = [json.loads(line) for line in text.splitlines()]
    for table in tables:
        del table["crc32"]
    with_anything_in_any_place(tables, data)
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        (cache / "journal").mkdir()
        (cache / "journal" / "main.jsonl").write_text("".join(map(with_crc32, tables)))
        journal = value_or_line(lambda: Journal.load(cache))
        if journal is not None and value_or_line(lambda: journal.all_groups) is not None:
            consolidate(cache, journal)
            assert Journal.load(cache).all_groups == journal.all_groups


def with_crc32(table: Any) -> str:
    head = json.dumps(table, separators=(",", ":"))
    return f'{head[:-1]},"crc32":{zlib.crc32(head.encode())}}}\n'


@FEW
@given(st.data())
def test_a_journal_that_was_cut_anywhere_has_the_lines_before_it_and_goes_on(hdf5_cache, data):
    raw = (hdf5_cache / "journal" / "main.jsonl").read_bytes()
    at = data.draw(st.integers(0, len(raw)))
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder)
        (cache / "journal").mkdir()
        (cache / "journal" / "main.jsonl").write_bytes(raw[:at])
        whole = raw[:at].count(b"\n") + (raw[at : at + 1] == b"\n")
        journal = Journal.load(cache)
        assert len(journal.files) == whole
        more = SkippedImage(split="train", key="a/9.jpg", reason="no image", bytes=1, mtime_ns=2)
        JournalWriter(cache).add(more)
        again = Journal.load(cache)
        assert (again.files, again.skipped) == (journal.files, {"train": {"a/9.jpg": more}})


@FEW
@given(st.data())
def test_a_changed_byte_of_a_journal_is_noticed(hdf5_cache, data):
    raw = bytearray((hdf5_cache / "journal" / "main.jsonl").read_bytes())
    before = Journal.load(hdf5_cache)
    at = data.draw(st.integers(0, raw.rindex(b"\n", 0, len(raw) - 1) - 1))
    raw[at] ^= data.draw(st.integers(1, 127))
    with written(bytes(raw), "main.jsonl") as path:
        (path.parent / "journal").mkdir()
        path.rename(path.parent / "journal" / path.name)
        after = value_or_line(lambda: Journal.load(path.parent))
        # What begins as a line and does not end as one reads as one that a kill has cut short.
        assert after is None or set(after.files) < set(before.files)
