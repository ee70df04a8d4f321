"""The journal: lines of several writers, folded; what is cut short, and what is damaged."""

from __future__ import annotations

from dataclasses import asdict

import pytest
from helpers.row_groups import add_group, group_keys

from cache.runtime.errors import UserError
from cache.store.digests import Digests
from cache.store.journal import Journal, JournalWriter, consolidate, writers
from cache.store.journal_lines import (
    DroppedFile,
    FileLine,
    RemovedRows,
    RestoredRows,
    SkippedImage,
    TriedImage,
    as_text,
    read_lines,
)

KEYS = ["a/0.jpg", "a/1.jpg", "b/0.jpg"]


def removed(group, rows):
    return RemovedRows(group=group, rows=rows, digests=asdict(group_keys(KEYS).taken(rows).digests()))


def test_lines_of_several_writers_are_one_journal(tmp_path):
    first = add_group(tmp_path, KEYS)
    second = add_group(tmp_path, ["c/0.jpg"], writer="rank-00001")
    other = add_group(tmp_path, ["d/0.jpg"], split="ood_test", writer="rank-00002")
    journal = Journal.load(tmp_path)
    assert (
        [group.name for group in journal.groups("train")] == [first, second] == ["train-00000", "train-00001"]
    )
    assert [group.name for group in journal.all_groups] == [first, second, other]
    assert journal.rows("train") == 4
    assert journal.digests("train") == group_keys([*KEYS, "c/0.jpg"]).digests()


def test_a_line_that_a_kill_cut_short_is_nobodys_and_the_next_line_is_whole(tmp_path):
    add_group(tmp_path, KEYS)
    (path,) = writers(tmp_path)
    whole = path.read_bytes()
    for end in range(len(whole) - 2, len(whole) - 40, -7):
        path.write_bytes(whole[:end])
        assert Journal.load(tmp_path).splits == ()
        JournalWriter(tmp_path).add(SkippedImage(split="train", key="k", reason="r", bytes=1, mtime_ns=2))
        journal = Journal.load(tmp_path)
        assert list(journal.skipped["train"]) == ["k"]
        assert journal.splits == ()


def test_any_flipped_bit_of_a_line_is_found_and_its_line_named(tmp_path):
    add_group(tmp_path, KEYS)
    add_group(tmp_path, ["c/0.jpg"])
    (path,) = writers(tmp_path)
    whole = bytearray(path.read_bytes())
    for place in range(0, len(whole), 11):
        wrong = bytearray(whole)
        wrong[place] ^= 4
        path.write_bytes(wrong)
        lines = [line for _, line in read_lines(path)]
        right = [line for line in lines if not isinstance(line, ValueError)]
        assert len(right) == 3 or any(isinstance(line, ValueError) for line in lines)
        if len(right) < len(lines):
            with pytest.raises(UserError, match=r"line \d of .*main.jsonl is damaged .* cache repair"):
                Journal.load(tmp_path)


def test_removed_rows_are_seen_no_more_and_may_come_back(tmp_path):
    name, writer = add_group(tmp_path, KEYS), JournalWriter(tmp_path)
    writer.add(removed(name, (0, 2)))
    writer.add(removed(name, (0, 2)))  # again, of a writer that was killed between two
    journal = Journal.load(tmp_path)
    assert journal.rows("train") == 1
    assert journal.digests("train") == group_keys(["a/1.jpg"]).digests()
    back = removed(name, (2,))
    writer.add(RestoredRows(group=name, rows=back.rows, digests=back.digests))
    journal = Journal.load(tmp_path)
    assert journal.groups("train")[0].removed == {0}
    assert journal.digests("train") == group_keys(KEYS[1:]).digests()


def test_a_group_whose_keys_are_dropped_is_gone_with_all_its_columns(tmp_path):
    name, writer = add_group(tmp_path, KEYS), JournalWriter(tmp_path)
    writer.add(removed(name, (1,)), DroppedFile(file=f"rows/{name}/keys.h5"))
    journal = Journal.load(tmp_path)
    assert (journal.splits, journal.files, journal.removed) == ((), {}, {})


def test_consolidating_leaves_one_writer_that_says_the_same(tmp_path):
    name = add_group(tmp_path, KEYS)
    add_group(tmp_path, ["c/0.jpg"], writer="rank-00001")
    JournalWriter(tmp_path, "other").add(
        removed(name, (1,)),
        SkippedImage(split="train", key="x.jpg", reason="cut", bytes=1, mtime_ns=2),
        SkippedImage(split="train", key="y.jpg", reason="cut", bytes=1, mtime_ns=2),
        TriedImage(split="train", key="y.jpg"),
    )
    before = Journal.load(tmp_path)
    consolidate(tmp_path, before)
    after = Journal.load(tmp_path)
    assert [path.name for path in writers(tmp_path)] == ["main.jsonl"]
    assert after.all_groups == before.all_groups
    assert after.skipped == before.skipped
    assert set(after.skipped["train"]) == {"x.jpg"}


@pytest.mark.parametrize(
    "file",
    [
        "rows/train-00000/../../../etc/passwd.h5",
        "rows/train-00000/.h5",
        "rows/other-00000/keys.h5",
        "rows/train-00000/a/b.h5",
        "/rows/train-00000/keys.h5",
        "texts/labels.h5",
        "tars/train-1.tar",
        "tars/train-00001.tar.gz",
    ],
)
def test_a_line_lists_no_file_but_one_of_a_row_group(tmp_path, file):
    with pytest.raises(ValueError, match=r"is no (file of a|row group)"):
        FileLine(file=file, bytes=1, sha256="", rows=1, about={"digests": asdict(Digests())})
    line = FileLine(file="rows/train-00000/a.h5", bytes=1, sha256="", rows=1)
    text = as_text(line).replace("rows/train-00000/a.h5", file)
    (tmp_path / "journal").mkdir()
    (tmp_path / "journal" / "main.jsonl").write_text(text)
    with pytest.raises(UserError, match="line 1"):
        Journal.load(tmp_path)
