"""Row groups close at so many rows, bytes or seconds, and when their unit ends; never within a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from cache.build import group_writer
from cache.build.embed_images import Decoded, EmbeddedBatch, Seconds, UnitSettings, Writer
from cache.build.group_writer import GroupWriter
from cache.build.plan import Unit
from cache.runtime.errors import UserError
from cache.runtime.signals import Terminated
from cache.store.journal import Journal
from cache.store.journal_lines import SkippedImage
from cache.store.row_group import read_keys
from cache.store.spec import CacheSpec
from cache.teacher.load import load_teacher


@dataclass(frozen=True)
class Drawn:
    """A sample that is nobody's."""

    key: str
    labels = ("apple",)


def batch(unit, start, rows, skipped=0):
    """Rows of a unit, and images that could not be read."""
    decoded = Decoded(reason="", sha256="0" * 64, bytes=1, mtime_ns=1, seconds=0)
    bad = [f"apple/bad_{start}_{i}.jpg" for i in range(skipped)]
    return EmbeddedBatch(
        unit=unit,
        samples=tuple(Drawn(f"apple/{i}.jpg") for i in range(start, start + rows)),
        decoded=(decoded,) * rows,
        columns={"image_embedding": np.full((rows, 4), start, np.float32)} if rows else {},
        skipped=tuple(SkippedImage(split=unit.split, key=k, reason="", bytes=1, mtime_ns=1) for k in bad),
    )


ONE, OTHER = (Unit(split="train", chunks=(name,), rows=9) for name in ("0*", "1*"))


@pytest.fixture
def writing(tmp_path, teacher_dir):
    """A writer of groups into ``tmp_path``."""
    teacher = load_teacher(f"local-dir:{teacher_dir}")
    settings = UnitSettings(
        cache=tmp_path,
        spec=CacheSpec(teacher=teacher.spec),
        batch_size=3,
        strict=False,
        planned=frozenset(),
    )
    return GroupWriter.writing(settings, Writer(teacher=teacher, workers=0, name="main"), Seconds())


def sizes(cache):
    return [group.rows for group in Journal.load(cache).groups("train")]


def test_a_group_ends_with_its_unit(writing, tmp_path):
    with writing as writer:
        for unit, start in ((ONE, 0), (ONE, 3), (ONE, 6), (OTHER, 9)):
            writer.add(batch(unit, start, 3))
    groups = Journal.load(tmp_path).groups("train")
    assert [group.rows for group in groups] == [9, 3]
    assert groups[0].keys.about["unit"] == ONE.name
    assert groups[0].keys.about["batch_size"] == 3
    assert read_keys(tmp_path, groups[1].keys).keys == [f"apple/{i}.jpg" for i in (9, 10, 11)]


@pytest.mark.parametrize(
    ("limit", "value", "expected"),
    [("GROUP_ROWS", 7, [6, 6]), ("GROUP_BYTES", 100, [6, 6]), ("GROUP_SECONDS", 0, [3, 3, 3, 3])],
)
def test_a_group_is_closed_between_batches(writing, tmp_path, monkeypatch, limit, value, expected):
    monkeypatch.setattr(group_writer, limit, value)
    with writing as writer:
        for start in range(0, 12, 3):
            writer.add(batch(ONE, start, 3))
    assert sizes(tmp_path) == expected


def test_images_that_were_skipped_are_listed_with_their_group_and_need_none(writing, tmp_path):
    with writing as writer:
        writer.add(batch(ONE, 0, 2, skipped=1))
        writer.add(batch(OTHER, 2, 0, skipped=3))
    assert sizes(tmp_path) == [2]
    assert len(Journal.load(tmp_path).skipped["train"]) == 4


def two_groups(writing, error):
    """Add two groups, of which the second is open when the error comes."""
    with writing as writer:
        writer.add(batch(ONE, 0, 3))
        writer.add(batch(OTHER, 3, 2))
        raise error


@pytest.mark.parametrize("error", [Terminated(), KeyboardInterrupt()])
def test_a_stop_writes_the_open_group(writing, tmp_path, error):
    with pytest.raises(type(error)):
        two_groups(writing, error)
    assert sizes(tmp_path) == [3, 2]


def test_an_error_does_not_write_what_may_be_wrong(writing, tmp_path):
    with pytest.raises(UserError, match="odd"):
        two_groups(writing, UserError("odd", fix="do something."))
    assert sizes(tmp_path) == [3]


def test_a_group_that_cannot_be_written_ends_the_run(writing, tmp_path):
    (tmp_path / "rows").write_text("in the way")
    with pytest.raises(UserError, match="rows"):
        two_groups(writing, KeyboardInterrupt())
