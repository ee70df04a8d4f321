"""Augmented views kept for retrieval: what they are, when they are redone, how they are checked."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.caches import builder

from cache import EmbeddingCache
from cache.maintain.convert import convert_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import UserError
from cache.sources.decoding import load_rgb
from cache.teacher.load import load_teacher


@pytest.fixture
def build(photos, teacher_dir, tmp_path):
    """A function that caches ``photos``; options change."""
    return builder(photos, teacher_dir, tmp_path, support_views=3)


def views_of(cache, split="ood_test"):
    return cache.support_views(split, list(cache.split(split).keys))


def files(cache, column="support_views"):
    return {
        str(f.relative_to(cache.path)): f.read_bytes() for f in sorted(cache.path.glob(f"rows/*/{column}.h5"))
    }


def test_the_first_view_is_the_plain_row_and_the_others_are_the_teachers_of_other_pixels(build):
    cache = build()
    for split in ("train", "ood_test"):
        views = views_of(cache, split)
        assert views.shape == (len(cache.split(split)), 3, 16)
        np.testing.assert_array_equal(views[:, 0], np.asarray(cache.split(split).embeddings))
        assert not np.allclose(views[:, 1], views[:, 2])
        # A picture of little but noise, changed a little, stays nearer to itself than to nothing.
        cosines = np.sum(views[:, 0] * views[:, 1], 1) / np.prod(np.linalg.norm(views[:, :2], axis=2), 1)
        assert cosines.min() > 0
    assert cache.manifest.columns["support_views"].splits == ("train", "ood_test")


def test_a_view_is_randaugment_of_the_resized_picture_through_the_teacher(build, photos, teacher_dir):
    from hashlib import sha256

    from cache.runtime.torchvision_compat import torchvision

    cache, teacher = build(), load_teacher(f"local-dir:{teacher_dir}")
    key = cache.split("ood_test").keys[0]
    image = torchvision.transforms.Resize(round(32 * 256 / 224))(load_rgb(photos / "val" / key))
    torch.manual_seed(int.from_bytes(sha256(key.encode()).digest()[:7], "big"))
    augment = torchvision.transforms.RandAugment(2, 9)
    pixels = torch.stack([teacher.transform(augment(image)) for _ in range(2)])
    np.testing.assert_allclose(
        views_of(cache)[0, 1:], teacher.embed_images(pixels).numpy(), rtol=1e-4, atol=1e-5
    )


def test_views_do_not_depend_on_workers_or_batches(build):
    one, other = build("one"), build("other", workers=2, batch_size=3)
    np.testing.assert_allclose(views_of(one), views_of(other), rtol=1e-4, atol=1e-5)


def test_a_finished_cache_gets_views_later_and_keeps_its_images(build):
    cache = build(support_views=0)
    with pytest.raises(UserError, match=r"keeps no views.*--support-views 10"):
        views_of(cache)
    images = {f: f.stat().st_mtime_ns for f in cache.path.glob("rows/*/image_embedding.h5")}
    cache = build()
    assert {f: f.stat().st_mtime_ns for f in cache.path.glob("rows/*/image_embedding.h5")} == images
    assert views_of(cache).shape[1] == 3


@pytest.mark.parametrize("how", ["removed", "cut"])
def test_a_lost_or_cut_file_is_found_and_made_again_to_the_same_bytes(build, how):
    cache = build()
    whole = files(cache)
    name = "rows/ood_test-00000/support_views.h5"
    file = cache.path / name
    if how == "removed":
        file.unlink()
    else:
        file.write_bytes(whole[name][:-9])
    assert [check.file for check in verify_cache(cache.path) if check.problem] == [name]
    assert files(build()) == whole


def test_another_number_of_views_is_made_anew_and_fewer_can_be_read(build):
    build()
    cache = build(support_views=5)
    assert views_of(cache).shape[1] == 5
    assert cache.support_views("ood_test", cache.split("ood_test").keys, views=2).shape[1] == 2
    with pytest.raises(UserError, match="keeps only 5 views"):
        cache.support_views("ood_test", cache.split("ood_test").keys, views=6)
    assert not any(check.problem for check in verify_cache(cache.path))


def test_a_changed_picture_gets_new_views_and_no_other(build, photos, write_jpeg):
    before = build()
    old = dict(zip(before.split("ood_test").keys, views_of(before), strict=True))
    write_jpeg(photos / "val" / "lemon" / "val_0.jpg", (255, 0, 255))
    after = build()
    for key, row in zip(after.split("ood_test").keys, views_of(after), strict=True):
        assert np.array_equal(row, old[key]) == (key != "lemon/val_0.jpg")


def test_views_of_the_first_images_alone_are_enough_for_so_many_shots(build):
    cache = build(support_shots=2)
    keys = [f"{name}/val_{i}.jpg" for name in ("lemon", "plum") for i in (0, 1)]
    assert cache.support_views("ood_test", keys).shape == (4, 3, 16)
    with pytest.raises(UserError, match=r"keeps no views of 1 of 5 support images.*--support-shots"):
        cache.support_views("ood_test", [*keys, "plum/val_2.jpg"])


def test_another_format_carries_the_views_along(build, tmp_path):
    cache = build()
    convert_cache(cache.path, tmp_path / "tar", format="webdataset")
    other = EmbeddingCache.open(tmp_path / "tar")
    np.testing.assert_array_equal(views_of(cache), views_of(other))
    assert not any(check.problem for check in verify_cache(tmp_path / "tar"))
