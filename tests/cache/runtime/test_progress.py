"""What is told of work that takes time: lines in a log, a bar on a terminal, nothing of what is soon over."""

from __future__ import annotations

import io
import math
import sys

import click
import pytest

from cache.runtime.amounts import counted, in_time, rate_of
from cache.runtime.progress import BarProgress, LineProgress, Silent, counting, progress_for
from distill.commands.tables import loading


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines_of(work, **how) -> list[str]:
    log = io.StringIO()
    work(LineProgress("embedding", stream=log, **how))
    return log.getvalue().splitlines()


def two_steps(progress):
    progress.start(200)
    progress.advance(50)
    progress.advance(150)


def test_what_is_over_before_anybody_waited_leaves_no_line_in_a_log():
    assert lines_of(two_steps) == []
    assert lines_of(lambda progress: progress.note("skipped a.jpg")) == ["skipped a.jpg"]


def test_a_line_says_how_much_is_done_how_fast_and_what_is_left():
    first, last = lines_of(two_steps, patience=0)
    assert first.startswith("embedding: 50/200  ")
    assert " images/s  " in first
    assert first.endswith(" s left")
    assert last.startswith("embedding: 200/200  ")
    assert "left" not in last


def test_lines_have_time_between_them_and_the_last_is_the_end():
    def many(progress):
        progress.start(1000)
        for _ in range(1000):
            progress.advance(1)

    assert [line.split()[1] for line in lines_of(many, patience=0, every=math.inf)] == [
        "1/1,000",
        "1,000/1,000",
    ]


def test_of_an_unknown_total_the_rate_alone_is_told():
    def work(progress):
        progress.start(None, "downloading", "bytes")
        progress.advance(2_500_000)

    (line,) = lines_of(work, patience=0)
    assert line.startswith("downloading: 2.5 MB  ")
    assert line.endswith("MB/s") or line.endswith("GB/s")


def test_amounts_are_in_units_that_a_person_reads():
    assert counted(1_200_000_000, 1_700_000_000, "bytes") == "1.2 GB of 1.7 GB"
    assert rate_of(12_345_678, "bytes") == "12.3 MB/s"
    assert [in_time(seconds) for seconds in (4, 99, 720, 12_600)] == ["4 s", "99 s", "12 min", "3.5 h"]


def test_counting_counts_an_item_when_the_next_is_asked_for():
    log = io.StringIO()
    progress = LineProgress("files", "files", patience=0, every=0, stream=log)
    progress.start(2)
    for number in counting(progress, [0, 1]):
        assert len(log.getvalue().splitlines()) == number
    log.truncate(0)
    progress.start(3)
    assert [*counting(progress, "abc", at_once=2)] == [*"abc"]
    assert [line.split()[1] for line in log.getvalue().strip("\0").splitlines()] == ["2/3", "3/3"]


def test_a_terminal_gets_a_bar_a_log_lines_and_other_processes_nothing(monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert isinstance(progress_for("embedding"), LineProgress)
    monkeypatch.setattr(sys, "stderr", Terminal())
    bar = progress_for("embedding")
    assert isinstance(bar, BarProgress)
    two_steps(bar)
    bar.close()
    assert "200/200" in sys.stderr.getvalue()
    monkeypatch.setenv("RANK", "1")
    assert type(progress_for("embedding")) is Silent


@pytest.mark.parametrize("stream", [Terminal, io.StringIO])
def test_a_terminal_sees_at_once_that_a_command_has_begun_and_the_line_goes_again(stream, monkeypatch):
    shown = stream()
    monkeypatch.setattr(sys, "stderr", shown)
    with click.Context(click.Command("train"), info_name="distill train"), loading():
        during = shown.getvalue()
    is_terminal = stream is Terminal
    assert during == ("distill train: loading ..." if is_terminal else "")
    assert not shown.getvalue().split("\r")[-1]
