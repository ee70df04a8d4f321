"""The rows of random views: what the teacher says of that very crop, whoever makes them, and whenever."""

from __future__ import annotations

import h5py
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from helpers.caches import builder, views_of
from helpers.runs import SMALL
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
from distill.config import RunConfig
from distill.data.augment import crop, normalise, resize_size
from distill.settings import with_settings
from distill.train.session import open_session
from distill.train.shared_batches import stream_generator


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches ``photos`` with three views; options change."""
    return builder(photos, teacher_dir, tmp_path, views=3)


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
    boxes, flips, rows = (part[cache.split("train").position[key]] for part in views_of(cache))
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
    config = with_settings(RunConfig(), [*SMALL, "loss.cap=0", "data.replay_views=on"])
    session = open_session(config, cache_dir=cache.path, data_dir=photos)
    chosen = np.flatnonzero(session.data.joined.row_of == 3)
    crops = session.data.crops(chosen, stream_generator(0, 0, 0))
    _, images = next(iter(session.data.pixels.batches([chosen])))
    augment = session.model.augment
    replayed = augment(images, stream_generator(0, 0, 0), None, crops)
    wanted = normalise(shown[int(crops.view_B)], augment.normalisation)[0]
    # To a grey level: torch 2.14 rounds a few pixels of the augmented picture otherwise than 2.13.
    torch.testing.assert_close(replayed[0], wanted, rtol=0, atol=0.02)


def test_rows_by_a_projection_are_near_the_raw_ones_and_its_file_is_one_of_the_caches(build, tmp_path):
    raw, cache = build("raw"), build(store="pca128-int8", dtype="float32")
    boxes, flips, rows = views_of(cache)
    for mine, others in zip(views_of(raw)[:2], (boxes, flips), strict=True):
        np.testing.assert_array_equal(mine, others)
    expected = views_of(raw)[2]
    error = np.linalg.norm(rows - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    assert 0 < error.max() < 0.01  # of 16 numbers 16 are kept, of 8 bits
    with h5py.File(cache.path / "rows" / "train-00000" / "crop_views.h5") as file:
        assert (file["view_code"].dtype, file["view_code"].shape) == (np.int8, (24, 3, 16))
        assert "view_embedding" not in file
    convert_cache(cache.path, tmp_path / "tar", format="webdataset")
    np.testing.assert_array_equal(views_of(EmbeddingCache.open(tmp_path / "tar"))[2], rows)
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
    for mine, theirs in zip(views_of(one)[:2], views_of(other)[:2], strict=True):
        np.testing.assert_array_equal(mine, theirs)
    np.testing.assert_allclose(views_of(one)[2], views_of(other)[2], rtol=1e-4, atol=1e-5)


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
    three = views_of(build())
    assert {f: f.stat().st_mtime_ns for f in cache.path.glob("rows/*/image_embedding.h5")} == images
    cache = build(views=4)
    np.testing.assert_array_equal(views_of(cache)[0][:, :3], three[0])
    np.testing.assert_allclose(views_of(cache)[2][:, :3], three[2], rtol=1e-4, atol=1e-5)
    cache = build(views=4, views_scale=0.5)
    areas = views_of(cache)[0][..., 2:].prod(axis=-1)
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
    for mine, theirs in zip(views_of(cache), views_of(EmbeddingCache.open(tmp_path / "tar")), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not any(check.problem for check in verify_cache(tmp_path / "tar"))
