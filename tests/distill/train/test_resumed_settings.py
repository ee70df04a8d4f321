"""What a resumed run is told, and need not be told."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from helpers.runs import SMALL, StopAt, numbers, same_run

import cli
from cache.runtime.errors import CacheMismatch
from distill.config import RunConfig
from distill.settings import to_toml, with_settings
from distill.train.resumed_settings import check_settings
from distill.train.start import train as run
from distill.train.stopping import Stopped


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, *settings])


@pytest.fixture
def train(cached, photos, tmp_path):
    def run_it(*settings, **options):
        return run(config(*settings), cache_dir=cached.path, data_dir=photos, out=tmp_path / "cut", **options)

    return run_it


def test_a_stopped_run_goes_on_by_its_folder_alone_to_the_same_numbers(cached, photos, train, tmp_path):
    run(config(), cache_dir=cached.path, data_dir=photos, out=tmp_path / "whole")
    with pytest.raises(Stopped):
        train(progress=StopAt(6))
    # Where its images are the cache was told by the run before.
    told = CliRunner().invoke(cli.main, ["train", "--resume", "--out", str(tmp_path / "cut"), "--json"])
    assert told.exit_code == 0, told.output
    same_run(tmp_path / "cut", tmp_path / "whole")


def test_without_a_run_the_cache_is_asked_for_and_resume_says_that_there_is_none(tmp_path):
    told = CliRunner().invoke(cli.main, ["train", "--out", str(tmp_path / "new")])
    assert (told.exit_code, "Missing argument 'CACHE'" in told.output) == (2, True)
    told = CliRunner().invoke(cli.main, ["train", "--resume", "--out", str(tmp_path / "new")])
    assert (told.exit_code, "holds no run to resume" in told.output) == (1, True)


def test_what_changes_no_number_may_be_other_when_a_run_is_resumed(train, tmp_path):
    with pytest.raises(Stopped):
        train(progress=StopAt(6))
    train(
        *("data.workers=1", "data.memory_mb=8", "train.checkpoint_steps=7"),
        *("train.eval_batch_size=3", "data.device_images=off"),
        resume_run=True,
    )
    assert len(numbers(tmp_path / "cut")) == 3


def test_a_precision_that_became_another_is_refused(train):
    train("train.precision=bfloat16", "train.epochs=1")
    with pytest.raises(CacheMismatch, match=r"train\.precision: bfloat16 -> float32"):
        train("train.precision=float32", "train.epochs=1", resume_run=True)


def test_a_constant_rate_goes_on_for_more_epochs_as_if_they_had_been_asked_for_at_once(
    cached, photos, train, tmp_path
):
    constant = "optim.schedule=constant"
    places = {"cache_dir": cached.path, "data_dir": photos}
    run(config(constant, "train.epochs=2"), out=tmp_path / "whole", **places)
    train(constant, "train.epochs=1")
    train(constant, "train.epochs=2", resume_run=True)
    # The first epoch was its run's last, of which the ID test is judged as well.
    assert [line["loss_total"] for line in numbers(tmp_path / "cut")] == [
        line["loss_total"] for line in numbers(tmp_path / "whole")
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["optim.schedule=constant", "optim.warmup=0.5"], "optim.warmup=0.5 spreads its rates"),
        (["optim.schedule=constant", "train.head_only=trained"], "train.head_only=trained spreads its rates"),
        (["optim.schedule=constant", "train.head_only=closed-form"], "takes none: its head is done"),
    ],
)
def test_more_epochs_are_refused_where_a_constant_rate_is_not_all_of_a_run(settings, message, tmp_path):
    state = {"config": to_toml(config(*settings)), "precision": "float32"}
    with pytest.raises(CacheMismatch, match=message):
        check_settings(state, config(*settings, "train.epochs=9"), None, where=tmp_path)


def test_more_epochs_of_a_schedule_that_ended_with_the_run_are_refused_with_what_to_do(train):
    train("optim.schedule=cosine", "train.epochs=1")
    with pytest.raises(
        CacheMismatch, match=r"is of a run of 1 epochs.*schedule=cosine.*have others from the start"
    ):
        train("optim.schedule=cosine", "train.epochs=2", resume_run=True)
