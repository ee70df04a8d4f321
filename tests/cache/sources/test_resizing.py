"""Thin pictures cost what others do, and give the pixels that they gave."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from cache.runtime.torchvision_compat import torchvision
from cache.sources.decoding import squashed
from cache.sources.resizing import THIN, is_thin, less_thin, middle, resized

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR
T = torchvision.transforms


def noise(size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(900, 7), (7, 901), (40, 1500), (1500, 47), (300, 2), (1, 40)])
def test_the_middle_is_what_resize_and_crop_leave(size):
    picture = noise(size)
    whole = T.Resize(48, interpolation=T.InterpolationMode.BICUBIC)(picture)
    expected = np.asarray(T.CenterCrop(48)(whole)).astype(int)
    assert np.abs(np.asarray(middle(picture, 48, 48, BICUBIC)).astype(int) - expected).max() <= 1


def test_a_thin_picture_takes_the_memory_of_its_crop():
    wide, high = Image.new("RGB", (60_000, 4), (9, 8, 7)), Image.new("RGB", (2, 3_000_000), (9, 8, 7))
    tracemalloc.start()
    for picture in (wide, high):
        assert set(middle(picture, 224, 224, BICUBIC).get_flattened_data()) == {(9, 8, 7)}
        assert squashed(picture, 64).unique().tolist() == [7, 8, 9]
    tracemalloc.stop()


def test_columns_come_first_only_where_rows_would_take_too_much():
    usual = noise((30, 400))
    assert resized(usual, 64, 64, BILINEAR).tobytes() == usual.resize((64, 64), BILINEAR).tobytes()
    high = noise((2, 200_000))
    first = high.resize((2, 256), BILINEAR).resize((256, 256), BILINEAR)
    assert resized(high, 256, 256, BILINEAR).tobytes() == first.tobytes()
    part = resized(high, 256, 256, BILINEAR, (0, 0, 2, 200_000))
    assert part.tobytes() == first.tobytes()


def test_thin_is_more_than_sixteen_to_one():
    assert not is_thin(Image.new("L", (THIN * 10, 10)))
    assert is_thin(Image.new("L", (10, THIN * 10 + 1)))
    assert less_thin(Image.new("L", (1000, 10))).size == (160, 10)
    usual = Image.new("L", (100, 10))
    assert less_thin(usual) is usual
