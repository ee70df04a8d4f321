"""Views that training replays: the student sees the crop that the teacher saw, and learns that crop's row."""

from __future__ import annotations

import json
import subprocess

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ID_CLASSES, ROOT
from helpers.caches import builder
from helpers.processes import launch
from helpers.runs import SMALL, StopAt, numbers, weights
from PIL import Image, ImageOps

import cli
from cache import EmbeddingCache
from cache.build.crop_views import draw_views
from cache.maintain.convert import convert_cache
from cache.maintain.repair import repair_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.sources.rand_augment import draw_operations, rand_augment
from cache.teacher.load import load_teacher
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


def all_of(cache):
    """Every view of the training images in the order of their rows: boxes, flips, embeddings."""
    stored = cache.crop_views("train")
    rows = np.repeat(np.arange(stored.count), stored.views)
    views = np.tile(np.arange(stored.views), stored.count)
    boxes, flips = stored.crops(rows, views)
    shape = (stored.count, stored.views)
    return (
        boxes.reshape(*shape, 4),
        flips.reshape(shape),
        stored.embeddings(rows, views).reshape(*shape, -1),
    )


def files(cache):
    return {
        str(f.relative_to(cache.path)): f.read_bytes()
        for f in sorted(cache.path.glob("rows/*/crop_views.h5"))
    }


def view_of(image, box, flip, side):
    """The box of a picture at ``side`` x ``side``, written out."""
    left, top, width, height = (float(number) for number in box)
    (w, h), bicubic = image.size, Image.Resampling.BICUBIC
    view = image.resize(
        (side, side), bicubic, box=(left * w, top * h, (left + width) * w, (top + height) * h)
    )
    return np.array(ImageOps.mirror(view) if flip else view)


@pytest.mark.parametrize("preprocessing", ["model", "squash"])
def test_a_views_row_is_the_teachers_of_that_crop_written_out(build, photos, teacher_dir, preprocessing):
    rng = np.random.default_rng(0)
    key = "apple/wide.png"
    Image.fromarray(rng.integers(0, 256, (50, 90, 3), dtype=np.uint8)).save(photos / "train" / key)
    cache, teacher = build(preprocessing=preprocessing), load_teacher(f"local-dir:{teacher_dir}")
    boxes, flips, rows = (part[cache.split("train").position[key]] for part in all_of(cache))
    image = Image.open(photos / "train" / key)
    if preprocessing == "squash":
        image = image.resize((256, 256), Image.Resampling.BILINEAR)
    views = np.stack([view_of(image, box, flip, 32) for box, flip in zip(boxes, flips, strict=True)])
    pixels = torch.from_numpy((views / 255 - 0.5) / 0.5).float().permute(0, 3, 1, 2)
    np.testing.assert_allclose(rows, teacher.embed_images(pixels).numpy(), rtol=1e-4, atol=1e-5)
    assert not np.allclose(rows[0], rows[1])


def test_student_and_teacher_see_the_same_region_the_same_way_round():
    y, x = np.mgrid[:60, :100] / np.array([60, 100])[:, None, None]
    image = Image.fromarray((np.stack([x, y, 1 - x], axis=-1) * 255).astype(np.uint8))
    squash = torch.from_numpy(np.array(image.resize((64, 64), Image.Resampling.BILINEAR))).permute(2, 0, 1)
    views = draw_views("some/key.png", 24, 0.08)
    boxes, flips = torch.from_numpy(views.box), torch.from_numpy(views.flip)
    seen = crop(squash.expand(24, 3, 64, 64), boxes * 64, flips, 48).permute(0, 2, 3, 1).numpy()
    for student, box, flip in zip(seen, boxes, flips, strict=True):
        teacher = view_of(image, box, flip, 48).astype(float)
        assert np.abs(student - teacher).max() < 4  # a pixel of either is four levels
        assert np.abs(student - teacher[:, ::-1]).max() > 40
    assert 0 < flips.sum() < 24


def test_a_view_with_randaugment_is_cut_from_the_augmented_picture_for_teacher_and_student(
    build, photos, teacher_dir
):
    cache, teacher = build(view_policy="randaugment"), load_teacher(f"local-dir:{teacher_dir}")
    key, stored = cache.split("train").keys[3], cache.crop_views("train")
    rows, views = np.full(3, 3), np.arange(3)
    (boxes, flips), seeds = stored.crops(rows, views), stored.seeds(rows, views)
    side = resize_size(32)
    whole = np.array(Image.open(photos / "train" / key).resize((side, side), Image.Resampling.BILINEAR))
    whole = torch.from_numpy(whole).permute(2, 0, 1)
    seen, shown = [], []
    for box, flip, seed in zip(boxes, flips, seeds.tolist(), strict=True):
        drawn = draw_operations(1, torch.Generator().manual_seed(seed))
        augmented = rand_augment(whole[None], drawn)
        picture = Image.fromarray(augmented[0].permute(1, 2, 0).numpy())
        seen.append(view_of(picture, box, flip, 32))
        shown.append(crop(augmented, torch.from_numpy(box)[None] * side, torch.tensor([bool(flip)]), 32)[0])
    pixels = torch.from_numpy((np.stack(seen) / 255 - 0.5) / 0.5).float().permute(0, 3, 1, 2)
    expected = teacher.embed_images(pixels).numpy()
    np.testing.assert_allclose(stored.embeddings(rows, views), expected, rtol=1e-4, atol=1e-5)
    session = open_session(config(), cache_dir=cache.path, data_dir=photos)
    chosen = np.flatnonzero(session.data.joined.row_of == 3)
    crops = session.data.crops(chosen, stream_generator(0, 0, 0))
    _, images = next(iter(session.data.pixels.batches([chosen])))
    augment = session.model.augment
    replayed = augment(images, stream_generator(0, 0, 0), None, crops)
    torch.testing.assert_close(replayed[0], normalise(shown[int(crops.view_B)], augment.normalisation)[0])


def test_rows_by_a_projection_are_near_the_raw_ones_and_its_file_is_one_of_the_caches(build, tmp_path):
    raw, cache = build("raw"), build(store="pca128-int8", dtype="float32")
    boxes, flips, rows = all_of(cache)
    for mine, others in zip(all_of(raw)[:2], (boxes, flips), strict=True):
        np.testing.assert_array_equal(mine, others)
    expected = all_of(raw)[2]
    error = np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert 0 < error.max() < 0.01  # of 16 numbers 16 are kept, of 8 bits
    with h5py.File(cache.path / "rows" / "train-00000" / "crop_views.h5") as file:
        assert (file["view_code"].dtype, file["view_code"].shape) == (np.int8, (24, 3, 16))
        assert "view_embedding" not in file
    convert_cache(cache.path, tmp_path / "tar", format="webdataset")
    np.testing.assert_array_equal(all_of(EmbeddingCache.open(tmp_path / "tar"))[2], rows)
    projection, whole = cache.path / "projections" / "main.h5", files(cache)
    held = projection.read_bytes()
    projection.write_bytes(held[:-1] + bytes([held[-1] ^ 1]))
    with pytest.raises(UserError, match=r"main\.h5 is damaged.*cache repair"):
        cache.crop_views("train")
    assert [check.file for check in repair_cache(cache.path).removed] == ["projections/main.h5"]
    assert "--store pca128-int8" in repair_cache(cache.path).commands[0]
    assert files(build(store="pca128-int8")) == whole
    assert projection.read_bytes() == held
    assert not any(check.problem for check in verify_cache(cache.path))


def test_crops_are_a_function_of_key_and_number_within_the_image_and_not_too_small():
    many, few = (draw_views("apple/train_0.jpg", count, 0.3) for count in (400, 3))
    for name in ("box", "flip", "seed"):
        np.testing.assert_array_equal(getattr(many, name)[:3], getattr(few, name))
    assert not np.array_equal(draw_views("apple/train_1.jpg", 3, 0.3).box, few.box)
    assert len(set(many.seed.tolist())) == 400
    left, top, width, height = many.box.T
    assert left.min() >= 0
    assert top.min() >= 0
    assert (left + width).max() <= 1
    assert (top + height).max() <= 1
    assert 0.299 < (width * height).min() < 0.35
    assert 0.74 < (width / height).min() < (width / height).max() < 1.34
    assert 150 < many.flip.sum() < 250


def test_views_do_not_depend_on_workers_batches_or_row_groups(build):
    one = build("one")
    other = build("other", workers=2, batch_size=7)
    assert [len(files(cache)) for cache in (one, other)] == [1, 4]
    for mine, theirs in zip(all_of(one)[:2], all_of(other)[:2], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(all_of(one)[2], all_of(other)[2], rtol=1e-4, atol=1e-5)


def test_files_can_be_mapped_and_hold_the_caches_dtype(build):
    cache = build(dtype="float16")
    with h5py.File(cache.path / "rows" / "train-00000" / "crop_views.h5") as file:
        assert file["view_embedding"].shape == (24, 3, 16)
        assert file["view_embedding"].dtype == np.float16
        assert file["box"].dtype == np.float32
        assert all(file[name].id.get_offset() for name in ("box", "flip", "view_embedding"))


def test_a_finished_cache_gets_views_later_and_others_when_asked(build):
    cache = build(views=None)
    with pytest.raises(UserError, match=r"keeps no views of train.*--views V"):
        cache.crop_views("train")
    images = {f: f.stat().st_mtime_ns for f in cache.path.glob("rows/*/image_embedding.h5")}
    three = all_of(build())
    assert {f: f.stat().st_mtime_ns for f in cache.path.glob("rows/*/image_embedding.h5")} == images
    cache = build(views=4)
    np.testing.assert_array_equal(all_of(cache)[0][:, :3], three[0])
    np.testing.assert_allclose(all_of(cache)[2][:, :3], three[2], rtol=1e-4, atol=1e-5)
    cache = build(views=4, views_scale=0.5)
    areas = all_of(cache)[0][..., 2:].prod(axis=-1)
    assert areas.min() > 0.49
    assert len(files(cache)) == 1
    kept = files(build(views=None))  # asked for no views, it keeps those that are there
    assert kept == files(cache)


def test_info_and_convert_know_views(build, tmp_path):
    cache = build()
    info = CliRunner().invoke(cli.main, ["cache", "info", str(cache.path)]).output
    assert "crop_views" in info
    assert "views 3, scale 0.3, operations 0, magnitude 0" in " ".join(info.split())
    convert_cache(cache.path, tmp_path / "tar", format="webdataset")
    for mine, theirs in zip(all_of(cache), all_of(EmbeddingCache.open(tmp_path / "tar")), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not any(check.problem for check in verify_cache(tmp_path / "tar"))


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
    boxes, flips, rows = all_of(session.model.cache)
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


def test_views_of_a_picture_that_was_changed_are_made_anew_and_no_other(build, photos, write_jpeg):
    cache = build()
    before, keys = all_of(cache), list(cache.split("train").keys)
    write_jpeg(photos / "train" / "banana" / "train_0.jpg", (255, 0, 255))
    build(views=None)
    with pytest.raises(UserError, match=r"keeps no views of 1 of 24 images of train"):
        open_session(config(), cache_dir=cache.path, data_dir=photos)
    after = all_of(build())
    np.testing.assert_array_equal(after[0], before[0])
    changed = (after[2] != before[2]).any(axis=(1, 2))
    assert [keys[i] for i in np.flatnonzero(changed)] == ["banana/train_0.jpg"]


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
