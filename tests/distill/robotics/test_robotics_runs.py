"""Robotics runs end to end: the same loop, resume, few-shot, learnt prompts, the commands."""

from __future__ import annotations

import json
import shutil
import signal
from functools import cache

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import Counted, make_cache
from helpers.runs import EPISODES_SMALL, RUN_FILES, StopAt, files_of_run, numbers, weights

import cli
from cache import EmbeddingCache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.episodes import EpisodeFolder
from distill.config import FewShotConfig, RunConfig
from distill.fewshot.finetune import finetune_config
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.open_run import evaluate_run, space_of_run
from distill.judge.teachers import evaluate_teacher
from distill.settings import load_recipe, with_settings
from distill.train.default_recipe import default_recipe
from distill.train.session import open_session
from distill.train.start import train as run
from distill.train.stopping import Stopped


def config(*settings):
    return with_settings(RunConfig(), [*EPISODES_SMALL, *settings])


def test_a_run_on_episodes_knows_what_they_held_and_refuses_changed_ones(episodes, episode_cache, tmp_path):
    shutil.copytree(episodes, tmp_path / "episodes")
    given = {"cache_dir": episode_cache, "data_dir": tmp_path / "episodes"}
    identity = open_session(config(), **given).identity
    assert list(identity.texts) == ["main/labels", "main/negative_labels"]
    assert identity.judged_on["ood_test"].images == 14
    assert identity.learnt_from["train"].labels
    with h5py.File(tmp_path / "episodes" / "train.h5", "r+") as file:
        key = next(iter(file))
        picture = file[key]["dict_str_hand_camera"]["dict_str_rgb"]
        picture[...] = 255 - picture[...]
    with pytest.raises(CacheMismatch, match=rf"1 images of train .*\({key}\)"):
        open_session(config(), **given)


@pytest.fixture
def train(episodes, episode_cache, tmp_path):
    """A function that trains a very small student on episodes and returns its summary."""

    def run_it(out="run", *settings, **options):
        return run(
            config(*settings), cache_dir=episode_cache, data_dir=episodes, out=tmp_path / out, **options
        )

    return run_it


@pytest.fixture(scope="module")
def whole(episodes, episode_cache, tmp_path_factory):
    """A function that gives the run with some settings that was never stopped, and its summary; to be read."""
    root = tmp_path_factory.mktemp("whole")

    @cache
    def whole_of(*settings):
        out = root / f"run-{len(list(root.iterdir()))}"
        return out, run(config(*settings), cache_dir=episode_cache, data_dir=episodes, out=out)

    return whole_of


def test_the_papers_recipe_is_the_default_one():
    recipe = load_recipe("robotics_efficientnet_b0")
    optim, losses = recipe.optim, recipe.loss
    assert (recipe.student.arch, recipe.student.image_size) == ("efficientnet_b0", 224)
    assert (recipe.train.epochs, recipe.train.batch_size) == (90, 60)
    assert (optim.name, optim.lr, optim.schedule_by, optim.gamma) == ("sgd", 1e-3, "epoch", 0.3)
    assert [90 * share for share in optim.milestones] == [30, 60]
    assert (losses.cls, losses.mse, losses.im_cst, losses.vlalign, losses.temperature) == (1, 1, 1, 0, 0.07)
    assert (recipe.robotics.gamma_neg, recipe.robotics.gamma_pos, recipe.robotics.clip) == (2, 1, 0.05)
    few = finetune_config(recipe, start="x.pt", support=FewShotConfig(shots=50), episodes=True)
    assert (few.optim.lr, few.optim.schedule) == (5e-4, "onecycle")
    assert (few.train.epochs, few.train.batch_size) == (20, 46)


def test_a_cache_says_which_recipe_it_is_trained_with(episode_cache, cached):
    assert default_recipe(episode_cache, ()) == "robotics_efficientnet_b0"
    assert default_recipe(cached.path, ()) == "head-first"


def test_a_run_folder_has_everything_it_promises(train, tmp_path, episode_cache):
    progress = Counted()
    summary = train(progress=progress)
    assert files_of_run(tmp_path / "run") == RUN_FILES
    assert progress.done == progress.totals == [32]
    last = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()][-1]
    assert {"loss_cls", "loss_mse", "loss_im_cst", "loss_total"} <= set(last)
    for group in ("", "id_objects_", "ood_objects_"):
        assert 0 <= last[f"ood_test_{group}average_precision"] <= 100
        assert f"ood_test_{group}recall" in summary
    assert "id_test_accuracy" in summary
    assert "train_accuracy" in summary
    assert summary["classes"] == {"train": 14, "id_test": 14, "ood_test": 26}
    assert summary["cache_fingerprint"] == EmbeddingCache.open(episode_cache).fingerprint
    assert "[robotics]" not in (tmp_path / "run" / "config.toml").read_text()
    judged = evaluate_run(tmp_path / "run", device="cpu")
    for name, result in judged.items():
        for metric, value in result.flat().items():
            assert last[metric] == pytest.approx(value), (name, metric)
    assert summary["per_object_average_precision"]["ood_test"] == pytest.approx(judged["ood_test"].per_object)


def test_training_lowers_the_loss(train, tmp_path):
    train("run", "train.epochs=20", "optim.name=adamw", "optim.lr=0.003", "loss.mse=0", "loss.im_cst=0")
    losses = [line["loss_total"] for line in numbers(tmp_path / "run")]
    assert losses[-1] < 0.7 * losses[0]


@pytest.mark.parametrize(
    "settings", [(), ("robotics.local=true",), ("prompts.learner=coop", "prompts.n_ctx=2"), ("train.closed_set=true",)]
)  # fmt: skip
def test_a_run_stopped_in_mid_epoch_and_resumed_equals_an_uninterrupted_one(whole, train, tmp_path, settings):
    uninterrupted, _ = whole(*settings)
    with pytest.raises(Stopped) as stopped:
        train("cut", *settings, progress=StopAt(12))
    assert stopped.value.signal_number == signal.SIGTERM
    train("cut", *settings, resume_run=True)
    assert numbers(tmp_path / "cut") == numbers(uninterrupted)
    one, other = weights(tmp_path / "cut"), weights(uninterrupted)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_teacher_is_in_memory_and_episodes_are_read_in_workers_alike(whole, train, tmp_path):
    kept, _ = whole()
    train("read", "data.memory_mb=0", "data.workers=2")
    assert numbers(kept) == numbers(tmp_path / "read")


def test_id_val_chooses_the_best_checkpoint(train, tmp_path):
    summary = train("run", "data.id_val=0.3")
    assert (tmp_path / "run" / "best.pt").is_file()
    assert summary["images"]["id_val"] + summary["images"]["train"] == 16
    assert summary["images"]["id_val"] > 0
    assert "id_val" in evaluate_run(tmp_path / "run", splits=["id_val"], checkpoint="best", device="cpu")


def test_the_teacher_is_judged_from_the_cache_alone(episode_cache, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(episode_cache, moved)
    results = evaluate_teacher(moved)
    assert set(results) == {"train", "id_test", "ood_test"}
    assert set(results["ood_test"].groups) == {"all", "id_objects", "ood_objects"}
    assert results["train"].episodes == 16


def test_a_summary_has_the_teacher_every_object_and_the_space(whole, episode_cache):
    _, summary = whole()
    teacher = evaluate_teacher(episode_cache)["ood_test"]
    assert summary["teacher_per_object_average_precision"]["ood_test"] == pytest.approx(teacher.per_object)
    for name, value in teacher.flat().items():
        assert summary["teacher_metrics"][name] == pytest.approx(value)
    assert summary["teacher_images"]["ood_test"] == 14
    assert set(summary["space"]) == {"id_test", "ood_test"}
    assert -1 <= summary["space"]["ood_test"]["cosine"] <= 1


def test_a_students_space_is_compared_with_the_hand_cameras(whole):
    out, summary = whole()
    space = space_of_run(out, device="cpu")
    assert space["ood_test"] == pytest.approx(summary["space"]["ood_test"], rel=1e-4)


def test_retrieval_and_photos_settings_are_refused_of_episodes(whole, cached, tmp_path):
    out, _ = whole()
    with pytest.raises(UserError, match=r"was trained on episodes\. Fix: use --method finetune"):
        few_shot(out, tmp_path / "few", FewShotOptions(method="retrieval"))
    with pytest.raises(UserError, match="--negative-text is for episodes, and these are photos"):
        evaluate_teacher(cached.path, negative_text="labels")


def test_few_shot_episodes_join_training_and_leave_the_test(whole, episodes, episode_cache, tmp_path):
    out, _ = whole()
    progress = Counted()
    options = FewShotOptions(shots=(3, 1), settings=("train.epochs=2", "train.batch_size=6"), device="cpu")
    results = few_shot(out, tmp_path / "few", options, progress=progress)
    assert [row["shots"] for row in results["table"]] == [1, 3]
    assert [draw["query_images"] for draw in results["draws"]] == [13, 11]
    assert progress.done == progress.totals
    start = out / "last.pt"
    session = open_session(
        finetune_config(config(), start=start, support=FewShotConfig(shots=3), episodes=True),
        cache_dir=episode_cache,
        data_dir=episodes,
    )
    keys = [episode.key for episode in EpisodeFolder.scan(episodes).split("val").all()]
    assert [episode.key for episode in session.data.joined.images[-3:]] == keys[:3]
    assert [record.key for record in session.splits["ood_query"].pixels.samples] == keys[3:]
    assert "ood_test" not in session.splits
    assert len(session.model.class_names) == 26
    labels = session.data.joined.rows.labels
    np.testing.assert_array_equal(labels[:16, 14:], 0)
    rows = EmbeddingCache.open(episode_cache).split("val")
    np.testing.assert_array_equal(labels[-3:], rows.labels[rows.find(keys[:3])])
    assert torch.equal(
        session.model.student.state_dict()["score_bias"],
        torch.load(start, weights_only=True)["student"]["score_bias"],
    )
    before = (tmp_path / "few" / "shots-3" / "last.pt").stat().st_mtime_ns
    again = few_shot(out, tmp_path / "few", options)
    assert again["table"] == results["table"]
    assert (tmp_path / "few" / "shots-3" / "last.pt").stat().st_mtime_ns == before
    assert (tmp_path / "few" / "fewshot.png").read_bytes().startswith(b"\x89PNG")
    query = evaluate_run(tmp_path / "few" / "shots-3", device="cpu")["ood_query"]
    assert query.episodes == 11
    assert results["draws"][1]["details"]["after"]["all"]["average_precision"] == pytest.approx(
        np.mean([line["ood_query_average_precision"] for line in numbers(tmp_path / "few" / "shots-3")])
    )


def test_the_baseline_can_learn_new_objects_too(whole, tmp_path):
    out, _ = whole("train.closed_set=true")
    options = FewShotOptions(
        shots=(4,), support_seeds=(0, 1), settings=("train.epochs=1", "train.batch_size=6"), device="cpu"
    )
    results = few_shot(out, tmp_path / "few", options)
    assert results["table"][0]["draws"] == 2
    assert results["table"][0]["after_all_std"] is not None


def test_what_does_not_fit_is_said(whole, train, episodes, episode_cache, photos, tmp_path):
    with pytest.raises(UserError, match="no text bank 'labls'"):
        train("a", 'text="labls"')
    with pytest.raises(UserError, match="no text bank 'negative'"):
        train("a", "robotics.negative_text=negative")
    of_photos = make_cache(tmp_path / "photo_cache", photos)
    with pytest.raises(UserError, match=r"holds no picture \(4 of no picture format"):
        run(config("train.closed_set=true"), cache_dir=of_photos.path, data_dir=episodes, out=tmp_path / "a")
    with pytest.raises(UserError, match=r"robotics\.local is True, but the cache is of photos"):
        run(config("robotics.local=true"), cache_dir=of_photos.path, data_dir=photos, out=tmp_path / "a")
    with pytest.raises(UserError, match=r"no file train\.h5"):
        run(config(), cache_dir=episode_cache, data_dir=photos, out=tmp_path / "a")
    changed = tmp_path / "changed"
    shutil.copytree(episodes, changed)
    with h5py.File(changed / "train.h5", "a") as file:
        file.copy(file["episode_00000"], "another")
        del file["another/model_ids"]
        file["another/model_ids"] = np.array([b"999_teapot"])
    with pytest.raises(CacheMismatch, match="999_teapot"):
        run(config(), cache_dir=episode_cache, data_dir=changed, out=tmp_path / "a")
    assert not (tmp_path / "a").exists()
    with pytest.raises(UserError, match="14 OOD episodes, so 14 for few-shot would leave none"):
        few_shot(whole()[0], tmp_path / "few", FewShotOptions(shots=(14,), device="cpu"))
    assert not (tmp_path / "few").exists()


def test_the_whole_way_through_the_command_line(teacher_dir, tmp_path):
    runner = CliRunner()

    def call(*words, status=0):
        result = runner.invoke(cli.main, [str(word) for word in words])
        assert result.exit_code == status, result.output
        return result.stdout if status == 0 else result.stderr

    data, cache, out = tmp_path / "data", tmp_path / "cache", tmp_path / "run"
    sizes = ["--image-size", 24, "--train", 14, "--id-test", 4, "--ood-test", 14]
    assert "14 episodes of train" in call("robotics", "make-demo", data, *sizes)
    model = ["--model", f"local-dir:{teacher_dir}", "--device", "cpu", "--workers", 0]
    # README's prompts: one negative text for all objects, and in the folder negative descriptions that some share.
    texts = ["--template", "a photo of {}", "--negative-template", "a grey background"]
    assert (
        json.loads(call("robotics", "cache-features", data, "--out", cache, *model, *texts, "--json"))["rows"]
        == 32
    )
    negative = EmbeddingCache.open(cache).text_bank("negative_descriptions").texts
    assert len(set(negative)) < len(negative)
    quick = [*(word for setting in EPISODES_SMALL for word in ("--set", setting)), "--device", "cpu"]
    printed = call("train", cache, "--data", data, "--out", out, *quick, "--local")
    assert "ood_test OOD objects" in printed
    assert "AP" in printed
    assert "ood_test ID objects" in call("evaluate", out, "--device", "cpu")
    assert json.loads(call("evaluate", cache, "--teacher", "--json"))["id_test"]["episodes"] == 4
    few = ["--episodes", "2", "--epochs", 1, "--device", "cpu", "--set", "train.batch_size=4"]
    assert "OOD after" in call("fewshot", out, *few)
    assert (out / "fewshot-finetune" / "fewshot.json").is_file()
    call(
        "train",
        cache,
        "--data",
        data,
        "--out",
        tmp_path / "closed",
        *quick,
        "--closed-set",
        "--device-images",
        "on",
    )
    wrong = ["train", cache, "--data", data, "--out", tmp_path / "x"]
    assert "prompts.learner is 'cocoop'" in call(*wrong, "--prompts", "cocoop", status=1)
    for option in ("--k=2", "--teachers=main,two"):
        name = option.partition("=")[0]
        assert f"{name} is for photos, and these are episodes" in call(*wrong, option, status=2)
    views = call(*wrong, "--replay-views=on", status=2)  # before what its settings want
    assert "--replay-views is for photos, and these are episodes" in views
    assert "id_test" in call("evaluate", out, "--space", "--device", "cpu")
    assert "--method retrieval is for photos" in call("fewshot", out, "--method", "retrieval", status=2)
    assert "--shots is for photos" in call("fewshot", out, "--shots", "2", status=2)
    assert "needs --pretrained" in call(
        "robotics", "cache-features", data, "--out", tmp_path / "x", "--model", "RN50", status=2
    )
    assert "leave out --data" in call("evaluate", cache, "--data", data, status=2)
    assert "is not numbers of at least 1" in call("fewshot", out, "--episodes", "0", status=2)
    error = call("train", cache, "--data", data, "--out", tmp_path / "x", "--prompts", "coop", status=1)
    assert "does not keep its teacher's text tower" in error
    assert error.count("\n") == 1
