"""A signal in an evaluation: the epoch before it is on the disk, the run leaves at once and goes on alike."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack

import click
import pytest
import torch
from click.testing import CliRunner
from helpers.processes import python, stopped
from helpers.runs import EPOCHS, numbers, same_run, words_of

import cli
from cache.runtime.distributed import lost_ranks
from cache.runtime.errors import UserError
from cache.runtime.loader_workers import batches
from cache.runtime.signals import Terminated, terminating
from distill.train.stopping import LeftAtOnce, Stop, listening


@pytest.fixture
def whole(cached, photos, tmp_path):
    """A run that was never stopped, with images set aside to choose on."""
    ended = CliRunner().invoke(
        cli.main, words_of("train", cached, photos, tmp_path / "whole", "data.id_val=0.3")
    )
    assert ended.exit_code == 0, ended.output
    return tmp_path / "whole"


def test_a_group_signal_in_an_evaluation_keeps_the_epoch_and_says_one_line(cached, photos, whole, tmp_path):
    out = tmp_path / "cut"
    words = words_of("train", cached, photos, out, "data.id_val=0.3", "data.workers=2")
    status, printed = stopped(python(), out, 0, words)
    assert status == 128 + signal.SIGTERM, printed
    assert "Traceback" not in printed
    assert f"stopped, and saved in {out / 'last.pt'}; go on with the same command and --resume" in printed
    place = torch.load(out / "last.pt", weights_only=True)["position"]
    assert (place["epoch"], place["history"], numbers(out)) == (0, [], [])
    assert place["sums"]["images"] == 75  # 15 that are not set aside, 5 times: the whole epoch
    # The last evaluation is that of the summary: everything is trained and judged by then.
    status, printed = stopped(python(), out, EPOCHS, [*words, "--resume"])
    assert (status, "Traceback" in printed) == (128 + signal.SIGTERM, False), printed
    assert not (out / "summary.json").exists()
    assert CliRunner().invoke(cli.main, [*words, "--resume"]).exit_code == 0
    same_run(out, whole)
    one, other = (torch.load(run / "best.pt", weights_only=True) for run in (out, whole))
    assert one["position"]["best_id_val"] == other["position"]["best_id_val"]
    assert one["position"]["epoch"] == other["position"]["epoch"]


def closing_files():
    try:
        raise UserError("another process was lost", fix="look.")
    finally:
        with ExitStack() as files:  # which takes the context of what is raised in it away
            files.callback(signal.raise_signal, signal.SIGTERM)


def handling_another_error():
    try:
        raise UserError("another process was lost", fix="look.")
    finally:
        try:
            raise KeyError
        except KeyError:
            signal.raise_signal(signal.SIGTERM)


def before_it_is_told():
    with lost_ranks():
        try:
            raise RuntimeError("[/gloo/pair.cc:561] Connection closed by peer [127.0.0.1]:3296. Maybe")
        finally:
            signal.raise_signal(signal.SIGTERM)


def test_a_process_that_torchrun_ends_before_it_met_anything_says_who_ended_it(monkeypatch):
    asked = click.command("wait")(lambda: signal.raise_signal(signal.SIGTERM))
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = CliRunner().invoke(cli.Program("distill", table={}, commands=[asked]), ["wait"])
    assert ended.stderr == "Error: stopped by torchrun, which ends all processes when one is lost.\n"


@pytest.mark.parametrize("lose", [closing_files, handling_another_error, before_it_is_told])
def test_the_end_that_torchrun_sends_to_the_others_does_not_silence_the_error_they_met(lose, monkeypatch):
    group = cli.Program("distill", table={}, commands=[click.command("lose")(lose)])
    alone = CliRunner().invoke(group, ["lose"])
    if lose != before_it_is_told:  # which no process alone does
        assert (alone.exit_code, "stopped" in alone.stderr) == (143, True)  # a person's
    monkeypatch.setenv("WORLD_SIZE", "2")
    ended = CliRunner().invoke(group, ["lose"])
    assert (ended.exit_code, ended.stderr.count("\n")) == (1, 1)
    assert re.match(
        r"Error: another process.* was lost( \(Connection closed by peer .*\))?. Fix:", ended.stderr
    )


def test_a_signal_is_looked_at_when_work_that_can_be_left_begins_and_raises_once_in_it():
    with listening() as stop:
        signal.raise_signal(signal.SIGTERM)  # elsewhere it is a request
        with pytest.raises(LeftAtOnce), stop.at_once():
            raise AssertionError("a signal had come before")
    again = Stop()
    with pytest.raises(LeftAtOnce), again.at_once():
        again.ask(signal.SIGINT, None)
    again.ask(signal.SIGINT, None)
    assert again.signal_number == signal.SIGINT


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_in_the_midst_of_a_fork_is_not_lost_in_a_hook_of_it(number):
    sent = []

    def in_a_fork():
        if armed:
            armed.clear()
            sent.append(number)
            # As when another thread got it: the main one would have it blocked.
            signal.getsignal(number)(number, None)

    armed = [True]
    os.register_at_fork(after_in_parent=in_a_fork)
    with listening() as stop, pytest.raises(LeftAtOnce), stop.at_once():
        batches([1, 2, 3, 4], 2)
    assert sent == [number]
    if number == signal.SIGTERM:
        armed.append(True)
        with pytest.raises(Terminated), terminating():
            batches([1, 2, 3, 4], 2)
        assert len(sent) == 2
