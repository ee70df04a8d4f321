"""What this machine, or the container on it, lets a program use."""

from __future__ import annotations

import os

import pytest
from click.testing import CliRunner

from cache.runtime.errors import UserError
from cache.runtime.machine_limits import cores, most_processes
from cli import main
from distill.data.pixel_sources import PixelMaker, decoding_workers
from distill.settings import load_recipe, with_settings


def test_cores_are_at_least_one_and_no_more_than_there_are():
    assert 1 <= cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    "setting",
    [
        *("data.workers=100000", "train.batch_size=1000000000", "train.eval_batch_size=1000000000"),
        *("student.image_size=1000000", "prompts.n_ctx=1000000", "data.repeat_epochs=1000000"),
    ],
)
def test_a_config_cannot_ask_for_more_than_a_machine_has(setting):
    name, _, value = setting.partition("=")
    with pytest.raises(UserError, match=rf"{name} is {int(value):,}\. Fix: give at most [\d,]+\."):
        with_settings(load_recipe("smoke"), [setting])


def test_workers_and_memory_of_a_larger_machine_become_those_of_this_one():
    config = with_settings(load_recipe("smoke"), ["data.workers=512", f"data.memory_mb={2**40}"])
    assert decoding_workers(config.data) == min(512, most_processes())
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert PixelMaker(config=config.data, cache=None, decode=None).budget <= physical // 2


@pytest.mark.parametrize(
    ("command", "option"),
    [
        *(
            (["cache-features", ".", "--out", "x"], name)
            for name in ("--workers", "--batch-size", "--pixels")
        ),
        *((["cache-features", ".", "--out", "x"], name) for name in ("--views", "--support-views")),
        (["cache-features", ".", "--out", "x"], "--neighbours"),
        (["sweep", "losses", "--cache", ".", "--data", ".", "--out", "x"], "--jobs"),
        (["caption", ".", "--model", "x"], "--workers"),
        (["describe", ".", "--model", "x"], "--workers"),
        (["predict", ".", "."], "--batch-size"),
        (["predict", ".", "."], "--threads"),
    ],
)
def test_an_option_cannot_ask_for_more_than_a_machine_has(command, option):
    ended = CliRunner().invoke(main, [*command, option, "1000000000"])
    assert ended.exit_code == 2
    assert f"'{option}': 1000000000 is not in the range" in ended.output
