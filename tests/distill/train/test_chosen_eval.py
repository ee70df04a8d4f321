"""The size and crop that a trained student is judged at, chosen on what was set aside."""

from __future__ import annotations

import pytest
from click.testing import CliRunner
from helpers.runs import SMALL, numbers

from cache.runtime.errors import UserError
from cli import main
from distill.config import RunConfig
from distill.judge.open_run import evaluate_run, open_trained
from distill.settings import with_settings
from distill.train.chosen_eval import sizes_and_crops
from distill.train.start import train as run

CHOOSE = ("eval.choose=true", "data.id_val=0.3", "train.epochs=1")


@pytest.fixture
def train(cached, photos, tmp_path):
    def run_it(*settings, **options):
        config = with_settings(RunConfig(), [*SMALL, *settings])
        return run(config, cache_dir=cached.path, data_dir=photos, out=tmp_path / "run", **options)

    return run_it


def test_the_best_of_a_few_is_kept_and_taken_by_what_comes_after(train, photos, tmp_path):
    summary = train(*CHOOSE)
    chosen = summary["chosen_eval"]
    tried = sizes_and_crops(with_settings(RunConfig(), SMALL).student)
    assert len(chosen["scores"]) == len(tried) == 4
    assert (chosen["eval_size"], chosen["eval_crop"]) in tried
    assert chosen["chosen_by"] == "accuracy on id_val"
    assert chosen["id_val_accuracy"] == max(chosen["scores"].values())
    config = open_trained(tmp_path / "run", data_dir=photos).config.student
    assert (config.eval_size, config.eval_crop) == (chosen["eval_size"], chosen["eval_crop"])
    again = evaluate_run(tmp_path / "run", data_dir=photos)["ood_test"]
    assert again.loss == pytest.approx(chosen["ood_test_loss"], rel=1e-4)
    other = evaluate_run(tmp_path / "run", data_dir=photos, eval_size=96)["ood_test"]
    assert other.loss != pytest.approx(chosen["ood_test_loss"], rel=1e-4)
    words = ["evaluate", tmp_path / "run", "--data", photos, "--split", "id_test"]
    told = CliRunner().invoke(main, [str(word) for word in words]).output
    assert f"at {chosen['eval_size']} px, the middle {chosen['eval_crop']:g} of the side" in told


def test_a_finished_run_can_still_choose_and_one_cut_at_its_end_chooses_the_same(train, tmp_path):
    plain = train("data.id_val=0.3", "train.epochs=1")
    assert "chosen_eval" not in plain
    before = numbers(tmp_path / "run")
    chosen = train(*CHOOSE, resume_run=True)
    assert numbers(tmp_path / "run") == before
    (tmp_path / "run" / "summary.json").unlink()
    assert train(*CHOOSE, resume_run=True)["chosen_eval"] == chosen["chosen_eval"]


def test_a_size_that_the_network_does_not_take_is_left_out_with_the_reason(train):
    arch = ("student.arch=timm:vit_tiny_patch16_224", 'student.kwargs=["depth=1"]')
    chosen = train(*CHOOSE, *arch)["chosen_eval"]
    assert len(chosen["scores"]) == 2
    assert len(chosen["left_out"]) == 2
    assert all("cannot be judged at" in reason for reason in chosen["left_out"].values())


def test_there_is_nothing_to_choose_on_without_what_is_set_aside():
    with pytest.raises(UserError, match=r"eval\.choose is on, but nothing is set aside"):
        with_settings(RunConfig(), ["eval.choose=true"])
