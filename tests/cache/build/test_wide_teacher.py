"""A teacher whose pictures are not square: everything that stage 1 makes is made for both sides."""

from __future__ import annotations

import numpy as np
from helpers.caches import builder
from helpers.teachers import save_clip

from cache.sources.decoding import load_rgb
from cache.teacher.load import load_teacher

VISION = {"image_size": [32, 64], "layers": 1, "width": 32, "head_width": 16, "patch_size": 16}


def test_rows_views_and_support_of_a_wide_teacher(photos, tmp_path):
    folder = save_clip(tmp_path / "wide", vision_cfg=VISION)
    cache = builder(photos, folder, tmp_path)(views=2, support_views=2)
    assert cache.manifest.spec.teacher.image_size == (32, 64)
    teacher, rows = load_teacher(f"local-dir:{folder}"), cache.split("train")
    for key in rows.keys[:3]:
        picture = teacher.transform(load_rgb(photos / "train" / key))
        assert picture.shape == (3, 32, 64)
        expected = teacher.embed_images(picture[None])[0].numpy()
        np.testing.assert_allclose(rows.embeddings[rows.position[key]], expected, rtol=1e-4, atol=1e-5)
    assert cache.support_views("train", rows.keys[:3]).shape == (3, 2, 16)
    some = np.arange(3)
    assert cache.crop_views("train").embeddings(some, some % 2).shape == (3, 16)
