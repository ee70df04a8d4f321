"""What a teacher takes of thin pictures: what its own transform gives, at the price of any other picture."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from cache.teacher.open_clip_teacher import _transform

from open_clip.transform import PreprocessCfg, image_transform_v2  # isort: skip


def config(size=(32, 32), mode="shortest"):
    return PreprocessCfg(size=size, mean=(0.0,) * 3, std=(1.0,) * 3, resize_mode=mode)


def noise(size):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(48, 40), (300, 20), (600, 40), (40, 3000)])
def test_pictures_that_are_not_thin_or_not_enlarged_are_as_the_model_has_them_bit_for_bit(mode, size):
    asked = config(mode=mode)
    if mode == "longest" and size == (40, 3000):
        pytest.skip("its shorter side becomes nothing")
    own, picture = image_transform_v2(asked, is_train=False), noise(size)
    assert torch.equal(_transform(asked, "model")(picture), own(picture))


@pytest.mark.parametrize("sides", [(32, 32), (32, 48), (48, 32)])
@pytest.mark.parametrize("size", [(700, 9), (9, 700), (1000, 1)])
def test_a_thin_picture_gives_the_pixels_that_it_gave(sides, size):
    asked, picture = config(sides), noise(size)
    differ = _transform(asked, "model")(picture) - image_transform_v2(asked, is_train=False)(picture)
    assert differ.abs().max() <= 1.01 / 255


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [(60_000, 4), (4, 60_000), (1, 5_000_000)])
@pytest.mark.parametrize("preprocessing", ["model", "squash"])
def test_no_picture_is_too_thin(mode, size, preprocessing):
    pixels = _transform(config(mode=mode), preprocessing)(Image.new("RGB", size, (51, 51, 51)))
    assert pixels.shape == (3, 32, 32)
    assert pixels.amax(dim=(1, 2)).tolist() == pytest.approx([0.2] * 3)
