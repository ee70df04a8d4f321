"""Views that training replays: the student sees the crop that the teacher saw, and learns that crop's row."""

from __future__ import annotations

import json
import subprocess

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ID_CLASSES, ROOT
from helpers.caches import builder, views_of
from helpers.processes import launch
from helpers.runs import SMALL, StopAt, numbers, weights

import cli
from cache.runtime.errors import UserError
from distill.config import FewShotConfig, RunConfig
from distill.data.augment import TrainAugment, crop, normalise, resize_size
from distill.data.batch import Share
from distill.fewshot.finetune import finetune_config
from distill.settings import load_recipe, with_settings
from distill.train.loop import fit_together
from distill.train.run import StudentRun
from distill.train.session import open_session
from distill.train.shared_batches import stream_generator
from distill.train.start import train as run
from distill.train.stopping import Stopped

VIEWS = ["loss.cap=0", "data.replay_views=on"]


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, *VIEWS, *settings])


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches ``photos`` with three views; options change."""
    return builder(photos, teacher_dir, tmp_path, views=3)


@pytest.fixture
def session(build, photos):
    """A run that replays views, opened."""
    return open_session(config(), cache_dir=build().path, data_dir=photos)


def test_a_batch_has_the_rows_and_the_pixels_of_the_views_that_were_drawn(session):
    chosen = np.array([5, 0, 17, 5, 9, 23])
    crops = session.data.crops(chosen, stream_generator(0, 1, 2))
    again = session.data.crops(chosen, stream_generator(0, 1, 2))
    other = session.data.crops(chosen, stream_generator(0, 1, 3))
    assert torch.equal(crops.view_B, again.view_B)
    assert not torch.equal(crops.view_B, other.view_B)
    _, images = next(iter(session.data.pixels.batches([chosen])))
    batch = session.data.batch(
        chosen, session.model.augment(images, stream_generator(0, 1, 2), None, crops), crops
    )
    (targets,) = batch.targets
    assert targets.neighbours is None  # they are those of the view's own row
    boxes, flips, rows = views_of(session.model.cache)
    for i, (row, view) in enumerate(
        zip(session.data.joined.row_of[chosen], crops.view_B.tolist(), strict=True)
    ):
        np.testing.assert_array_equal(targets.teacher_BD[i], rows[row, view])
        box, flip = torch.from_numpy(boxes[row, view : view + 1]), torch.tensor([flips[row, view]])
        cut = crop(images[i : i + 1], box * resize_size(32), flip, 32)
        expected = normalise(cut, session.model.augment.normalisation)[0]
        torch.testing.assert_close(batch.image_BXRR[i], expected)


def test_vlalign_compares_with_the_texts_nearest_to_the_view(session):
    chosen = np.arange(6)
    crops = session.data.crops(chosen, stream_generator(0, 0, 0))
    outputs = torch.randn(6, 16, generator=stream_generator(0, 0, 1))
    batch = session.data.batch(chosen, torch.zeros(6, 3, 32, 32), crops)
    losses, _ = session.model.losses(outputs, batch)
    unit = torch.nn.functional.normalize
    text = unit(
        torch.from_numpy(session.model.cache.text_bank("labels").class_texts(session.model.class_names)),
        dim=1,
    )
    teacher, student = (unit(rows, dim=1) @ text.T / 0.07 for rows in (batch.targets[0].teacher_BD, outputs))
    p = teacher.softmax(dim=1)
    expected = (p * (teacher.log_softmax(dim=1) - student.log_softmax(dim=1))).sum(dim=1).mean()
    torch.testing.assert_close(losses["vlalign"], expected, rtol=1e-4, atol=1e-6)


def test_captions_stay_those_of_the_image(build, photos):
    captions = [
        {"key": f"train/{c}/train_{i}.jpg", "caption": f"{c} {i}"} for c in ID_CLASSES for i in range(8)
    ]
    (photos / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in captions))
    cache = build()
    session = open_session(config("loss.cap=1"), cache_dir=cache.path, data_dir=photos)
    chosen = np.array([3, 20])
    crops = session.data.crops(chosen, stream_generator(0, 0, 0))
    (targets,) = session.data.batch(chosen, torch.zeros(2, 3, 32, 32), crops).targets
    rows = session.data.joined.row_of[chosen]
    np.testing.assert_array_equal(targets.caption_BD, cache.split("train").caption_embeddings[rows])


def test_shares_of_a_batch_come_out_as_in_the_whole(session):
    chosen = np.arange(7)
    crops = session.data.crops(chosen, stream_generator(0, 0, 0))
    _, images = next(iter(session.data.pixels.batches([chosen])))
    augment, nothing = TrainAugment(image_size=32), stream_generator(0, 0, 0)
    whole = augment(images, nothing, None, crops)
    shares = [Share.of(7, rank, 3) for rank in range(3)]
    parts = [augment(images[share.rows], nothing, share, crops) for share in shares]
    torch.testing.assert_close(torch.cat(parts), whole)


def test_training_learns_from_views_and_a_stopped_run_resumes_to_the_same_numbers(build, photos, tmp_path):
    given = {"cache_dir": build().path, "data_dir": photos}
    run(config(), out=tmp_path / "whole", **given)
    run(config("data.replay_views=off"), out=tmp_path / "plain", **given)
    with pytest.raises(Stopped):
        run(config(), out=tmp_path / "cut", progress=StopAt(30), **given)
    run(config(), out=tmp_path / "cut", resume_run=True, **given)
    assert numbers(tmp_path / "cut") == numbers(tmp_path / "whole")
    one, other = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert numbers(tmp_path / "plain")[0]["loss_mse"] != numbers(tmp_path / "whole")[0]["loss_mse"]


def test_students_side_by_side_train_on_views_as_alone(build, photos, tmp_path):
    cache = build().path

    def begun(lr, out):
        session = open_session(config(f"optim.lr={lr}"), cache_dir=cache, data_dir=photos)
        return StudentRun(session, out)

    fit_together([begun(0.01, tmp_path / "alone")])
    fit_together([begun(lr, tmp_path / str(lr)) for lr in (0.02, 0.01)])
    assert numbers(tmp_path / "0.01") == numbers(tmp_path / "alone")


@pytest.mark.long
def test_two_processes_train_on_the_views_that_one_sees(build, photos, tmp_path):
    more = ["student.arch=timm:test_vit", "optim.lr=0.001", "train.epochs=1", "train.batch_size=7"]
    more.append("train.precision=float32")
    words = [word for setting in (*SMALL, *VIEWS, *more) for word in ("--set", setting)]
    cache, one, two = build().path, tmp_path / "one", tmp_path / "two"
    recipe = with_settings(load_recipe("paper-resnet18"), [*SMALL, *VIEWS, *more])
    run(recipe, cache_dir=cache, data_dir=photos, out=one)
    command = [
        *launch(2),
        "-m",
        "cli",
        "train",
        str(cache),
        "--data",
        str(photos),
        "--out",
        str(two),
        "--recipe",
        "paper-resnet18",
        *words,
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    for mine, theirs in zip(numbers(one), numbers(two), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["data.policy=flip"], r"data\.replay_views is on with data\.policy=flip.*crop_flip"),
        (["data.per_image=false"], r"data\.per_image=false.*data\.per_image=true"),
        (["train.closed_set=true"], r"data\.replay_views is on with train\.closed_set"),
        (["train.head_only=closed-form"], r"data\.replay_views is on with train\.head_only"),
    ],
)
def test_what_cannot_go_with_views_is_refused(settings, message):
    with pytest.raises(UserError, match=f"(?s){message}"):
        config(*settings)


def test_finetuning_goes_on_with_the_views_of_its_run():
    few = finetune_config(config(), start=ROOT / "last.pt", support=FewShotConfig(shots=1))
    assert few.data.replay_views == "on"


def test_a_cache_that_does_not_fit_is_refused_in_one_line(build, photos, write_jpeg):
    cache = build(views=None)
    with pytest.raises(UserError, match=r"(?s)keeps no views of train.*--views V, 8 for example"):
        open_session(config(), cache_dir=cache.path, data_dir=photos)
    build()
    write_jpeg(photos / "train" / "cherry" / "zzz.jpg")
    build(views=None)
    with pytest.raises(UserError, match=r"(?s)no views of 1 of 25 images of train.*--views 3"):
        open_session(config(), cache_dir=cache.path, data_dir=photos)


def test_the_command_line_caches_and_replays_views(photos, teacher_dir, tmp_path):
    cache, out = str(tmp_path / "cache"), tmp_path / "run"
    model = ["--model", f"local-dir:{teacher_dir}", "--workers", "0", "--device", "cpu"]
    ended = CliRunner().invoke(
        cli.main, ["cache-features", str(photos), "--out", cache, *model, "--views", "2"]
    )
    assert ended.exit_code == 0, ended.output
    words = [word for setting in (*SMALL, "loss.cap=0", "train.epochs=1") for word in ("--set", setting)]
    ended = CliRunner().invoke(
        cli.main,
        [
            "train",
            cache,
            "--data",
            str(photos),
            "--out",
            str(out),
            "--recipe",
            "paper-resnet18",
            "--replay-views",
            "on",
            *words,
        ],
    )
    assert ended.exit_code == 0, ended.output
    assert 'views = "on"' in (out / "config.toml").read_text()
    no = CliRunner().invoke(cli.main, ["cache-features", str(photos), "--out", cache, *model, "--views", "0"])
    assert no.exit_code == 2


def test_views_of_a_picture_that_was_changed_are_made_anew_and_no_other(build, photos, write_jpeg):
    cache = build()
    before, keys = views_of(cache), list(cache.split("train").keys)
    write_jpeg(photos / "train" / "banana" / "train_0.jpg", (255, 0, 255))
    build(views=None)
    with pytest.raises(UserError, match=r"keeps no views of 1 of 24 images of train"):
        open_session(config(), cache_dir=cache.path, data_dir=photos)
    after = views_of(build())
    np.testing.assert_array_equal(after[0], before[0])
    changed = (after[2] != before[2]).any(axis=(1, 2))
    assert [keys[i] for i in np.flatnonzero(changed)] == ["banana/train_0.jpg"]
