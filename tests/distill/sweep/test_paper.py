"""The ready sweep ``paper``: the runs of the paper's tables."""

from __future__ import annotations

import pytest
from conftest import make_cache

from cache.runtime.progress import Silent
from distill.config import RunConfig
from distill.sweep.plan import Sweep, load_sweep
from distill.sweep.run import FINISHED, Place, run_sweep
from distill.sweep.together import Together
from distill.sweep.watch import Lines

SMALL = (
    *('student.arch="timm:test_resnet"', "student.image_size=32", "train.epochs=1", "train.batch_size=8"),
    *("data.repeat_epochs=1", "data.workers=0", 'train.device="cpu"'),
)
# Which of L-cls, L-mse, L-im-cst, L-vlalign and L-cap are on, and the texts.
ROWS = {
    "closed-set": ((1, 0, 0, 0, 0), "labels"),
    "cls": ((1, 0, 0, 0, 0), "labels"),
    "cls+mse": ((1, 1, 0, 0, 0), "labels"),
    "cls+mse+im_cst": ((1, 1, 1, 0, 0), "labels"),
    "cls+mse+im_cst+vlalign": ((1, 1, 1, 1, 0), "labels"),
    "descriptions": ((1, 1, 1, 1, 0), "descriptions"),
    "captions": ((1, 1, 1, 1, 1), "labels"),
}


def weights(config: RunConfig) -> tuple[float, ...]:
    loss = config.loss
    return (loss.cls, loss.mse, loss.im_cst, loss.vlalign, loss.cap)


def test_the_papers_sweep_adds_one_part_after_the_other_with_three_seeds_each():
    runs = load_sweep("paper").runs
    assert [(run.point, run.seed) for run in runs] == [(name, seed) for name in ROWS for seed in (0, 1, 2)]
    for run in runs:
        assert (weights(run.config), run.config.text) == ROWS[run.point]
        assert run.config.train.closed_set == (run.point == "closed-set")
        assert run.config.loss.mse_raw == 0
    filtered = {(run.config.loss.vlalign_k, run.config.loss.vlalign_filter) for run in runs}
    assert filtered == {(256, True)}


@pytest.mark.parametrize(
    ("settings", "name", "repeats"),
    [
        ((), "sgd", 5),
        (("data.repeat_epochs=1",), "sgd", 1),
        (('recipe="paper-vit_b_32"', "data.repeat_epochs=3"), "adamw", 3),
    ],
)
def test_the_papers_sweep_takes_the_recipe_and_the_repeats_of_a_data_set(settings, name, repeats):
    configs = [run.config for run in load_sweep("paper", settings=settings).runs]
    assert {(config.optim.name, config.data.repeat_epochs) for config in configs} == {(name, repeats)}


def test_every_run_of_the_papers_sweep_trains_where_the_cache_has_what_it_takes(photos, tmp_path):
    make_cache(tmp_path / "cache", photos, captions=True)
    sweep = load_sweep("paper", settings=SMALL)
    # The bank of descriptions takes a teacher: see the tests of cache-features.
    runs = tuple(run for run in sweep.runs if run.seed == 0 and run.point != "descriptions")
    place = Place(cache=tmp_path / "cache", data=photos, out=tmp_path / "runs")
    one_seed = Sweep(question=sweep.question, runs=runs)
    results = run_sweep(one_seed, place, Together(progress=Silent()), Lines(runs, place))
    assert [result.status for result in results] == [FINISHED] * 6, [result.error for result in results]
