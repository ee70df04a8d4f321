"""A preprocessing in two halves, whose second a GPU does, gives the bits of the whole."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers.devices import DEVICES
from PIL import Image

from cache.teacher.any_shape import AnyShape, squashed
from cache.teacher.eight_bit import eight_bit
from cache.teacher.load import load_teacher

import timm.data  # isort: skip


def picture(width=60, height=41):
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def transforms(teacher_dir):
    own = load_teacher(f"local-dir:{teacher_dir}").transform
    squash = squashed(24, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    steps = timm.data.create_transform(input_size=(3, 20, 28), mean=(0.1, 0.5, 0.5), std=(0.5, 0.9, 1.0))
    timms = AnyShape(then=steps, sides=(22, 31), mode="shortest", resampling=Image.Resampling.BICUBIC)
    return own, squash, timms


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("device", DEVICES)
def test_both_halves_give_the_bits_of_the_whole(teacher_dir, device, dtype):
    for transform in transforms(teacher_dir):
        halves = eight_bit(transform)
        # The last is so thin that it goes another way.
        for photo in (picture(), picture(300, 200), picture(900, 2)):
            pixels = halves.pixels(photo)
            assert pixels.dtype == torch.uint8
            numbers = halves.numbers(pixels[None].to(device), dtype).cpu()[0]
            assert numbers.dtype == dtype
            assert torch.equal(numbers, transform(photo).to(dtype))


def test_a_preprocessing_that_ends_otherwise_is_left_whole():
    steps = timm.data.create_transform(input_size=(3, 20, 20), mean=(0.1,) * 3, std=(0.5,) * 3)
    steps.transforms = steps.transforms[:-1]
    assert (
        eight_bit(AnyShape(then=steps, sides=(20, 20), mode="shortest", resampling=Image.Resampling.BICUBIC))
        is None
    )
