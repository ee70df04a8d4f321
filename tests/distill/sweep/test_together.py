"""Students trained beside each other: as alone to the last bit, and no failure of one stops another."""

from __future__ import annotations

import json

import pytest
import torch
from helpers.runs import BASE, numbers, weights
from helpers.sweeps import invoke

from cache.runtime.errors import UserError
from distill.settings import load_recipe, to_toml, with_settings
from distill.sweep.plan import load_sweep
from distill.sweep.run import (
    FAILED,
    FINISHED,
    Place,
)
from distill.sweep.together import Together, groups_of
from distill.sweep.watch import Lines
from distill.train.start import train as run


def failed_together(path, place):
    """The results of a sweep in which not every run finished, and what it printed beside them."""
    ended = invoke(path, place, "--together", "--json")
    assert ended.exit_code == 1
    return json.loads(ended.stdout), ended.stderr


def test_students_trained_together_equal_their_separate_runs_bit_for_bit(written, place_of):
    path = written(
        "seeds = [0, 1]\n" + BASE + "data.seed = 5\n"
        "[[runs]]\nname = 'base'\n"
        "[[runs]]\nname = 'losses'\nloss.mse = 0\nloss.im_cst = 0.5\n"
        "[[runs]]\nname = 'steps'\noptim.lr = 0.002\noptim.name = 'adamw'\n"
    )
    together, separate = place_of(), place_of()
    sweep = load_sweep(path)
    assert len(groups_of(sweep.runs)) == 1
    ended = invoke(path, together, "--together", "--json")
    assert ended.exit_code == 0, ended.stderr
    for planned in [planned for planned in sweep.runs if planned.seed == 0 or planned.point == "base"]:
        run(planned.config, cache_dir=separate.cache, data_dir=separate.data, out=separate.folder(planned))
        assert numbers(together.folder(planned)) == numbers(separate.folder(planned))
        mine, theirs = weights(together.folder(planned)), weights(separate.folder(planned))
        assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    summary = json.loads((together.out / sweep.runs[0].name / "summary.json").read_text())
    assert summary["trained_beside"] == len(sweep.runs) - 1


def test_a_student_that_fails_among_others_is_named_and_the_others_finish(written, place_of):
    path = written(
        BASE
        + "[[runs]]\nname = 'good'\n[[runs]]\nname = 'wild'\noptim.lr = 1e30\n[[runs]]\nname = 'unknown'\ntext = 'no'\n"
    )
    place = place_of()
    results, _ = failed_together(path, place)
    assert [one["status"] for one in results] == [FINISHED, FAILED, FAILED]
    assert "not finite" in results[1]["error"]
    alone = place_of()
    good = load_sweep(path).runs[0]
    run(good.config, cache_dir=alone.cache, data_dir=alone.data, out=alone.folder(good))
    assert numbers(place.folder(good)) == numbers(alone.folder(good))


def test_a_run_that_cannot_begin_stops_no_other_beside_it(written, place_of):
    path, place = (
        written(BASE + "[[runs]]\nname = 'torn'\n[[runs]]\nname = 'good'\nloss.mse = 0\n"),
        place_of(),
    )
    torn = place.folder(load_sweep(path).runs[0])
    torn.mkdir(parents=True)
    (torn / "config.toml").write_text(to_toml(load_sweep(path).runs[0].config))
    (torn / "last.pt").write_bytes(b"half of a checkpoint")
    results, _ = failed_together(path, place)
    assert [one["status"] for one in results] == [FAILED, FINISHED]
    assert str(torn / "last.pt") in results[0]["error"]


def test_a_sweep_of_which_no_run_can_begin_names_every_error(written, place_of):
    results, printed = failed_together(written(BASE + "text = 'no-such-bank'\n"), place_of())
    assert [one["status"] for one in results] == [FAILED]
    assert "no-such-bank" in printed


def test_a_student_that_cannot_be_saved_in_mid_epoch_stops_no_other(written, place_of):
    path = written(
        BASE
        + "train.checkpoint_steps = 1\n[[runs]]\nname = 'wild'\noptim.lr = 1e38\n[[runs]]\nname = 'good'\n"
    )
    place = place_of()
    (wild, good), printed = failed_together(path, place)
    assert (wild["status"], good["status"]) == (FAILED, FINISHED)
    assert "weights are not finite after epoch 1, step 1" in wild["error"]
    assert "last.pt" not in wild["error"]  # there is none
    assert "wild,seed=0 failed" in printed


def test_weights_that_the_last_step_broke_are_not_saved(place_of):
    place = place_of()
    config = with_settings(
        load_recipe("smoke"),
        [
            "student.arch=timm:test_resnet",
            "data.workers=0",
            "train.batch_size=24",
            "train.epochs=1",
            "optim.lr=1e38",
        ],
    )  # one step an epoch: no later loss sees what it did
    with pytest.raises(UserError, match="weights are not finite after epoch 1, step 1"):
        run(config, cache_dir=place.cache, data_dir=place.data, out=place.out)
    assert not (place.out / "last.pt").exists()


def test_together_gives_a_result_for_every_run_when_the_stream_cannot_be_opened(written, place_of, tmp_path):
    place = place_of()
    sweep = load_sweep(written(BASE + "[grid]\nloss.mse = [0, 1]\n"))
    from cache.runtime.progress import Silent

    empty = Place(cache=place.cache, data=tmp_path / "empty", out=place.out)
    (tmp_path / "empty").mkdir()
    results = Together(progress=Silent())(sweep.runs, empty, Lines((), empty))
    assert [result.status for result in results] == [FAILED, FAILED]
    assert all("empty" in result.error for result in results)
