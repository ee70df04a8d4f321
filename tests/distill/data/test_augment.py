from __future__ import annotations

import pytest
import torch

from cache.runtime.torchvision_compat import torchvision
from cache.sources.crop_boxes import crop_boxes
from cache.sources.rand_augment import draw_operations, operations, rand_augment
from distill.data.augment import (
    TrainAugment,
    crop,
    eval_transform,
    normalise,
    resize_size,
    sampled,
)
from distill.data.normalisation import IMAGENET

T = torchvision.transforms
OPERATIONS = operations()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images():
    return torch.randint(0, 256, (8, 3, 36, 36), dtype=torch.uint8, generator=generator())


def test_crop_boxes_have_torchvisions_distribution():
    torch.manual_seed(0)
    image = torch.zeros(3, 64, 64)
    theirs = torch.tensor(
        [T.RandomResizedCrop.get_params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(4000)]
    ).float()
    ours = crop_boxes(4000, 64, scale=(0.08, 1.0), generator=generator())
    top, left, height, width = theirs.T
    for mine, other in zip(ours.T, (left, top, width, height), strict=True):
        levels = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9])
        torch.testing.assert_close(mine.quantile(levels), other.quantile(levels), atol=2.0, rtol=0)
    assert (ours[:, 0] + ours[:, 2] <= 64).all()
    assert (ours[:, 1] + ours[:, 3] <= 64).all()


@pytest.mark.parametrize("flip", [False, True])
def test_a_crop_equals_torchvisions_resized_crop(images, flip):
    box = torch.tensor([[5.0, 3.0, 20.0, 26.0]]).expand(8, 4)
    ours = crop(images, box, torch.full((8,), flip), 32)
    theirs = T.functional.resized_crop(images.float(), 3, 5, 26, 20, [32, 32], antialias=False)
    theirs = T.functional.hflip(theirs) if flip else theirs
    # At a box's edge we blend with the picture around it, torchvision repeats the edge.
    torch.testing.assert_close(ours[:, :, 1:-1, 1:-1], theirs[:, :, 1:-1, 1:-1], atol=1e-2, rtol=1e-4)


def test_every_image_has_its_own_crop_unless_asked_otherwise():
    same = torch.randint(0, 256, (1, 3, 36, 36), dtype=torch.uint8, generator=generator()).expand(
        6, -1, -1, -1
    )
    own = TrainAugment(image_size=32)(same, generator())
    shared = TrainAugment(image_size=32, per_image=False)(same, generator())
    assert len({row.numpy().tobytes() for row in own}) == 6
    assert len({row.numpy().tobytes() for row in shared}) == 1


@pytest.mark.parametrize("policy", ["crop_flip", "flip", "randaugment", "none"])
@pytest.mark.parametrize("per_image", [True, False])
def test_one_state_of_the_generator_gives_one_result(images, policy, per_image):
    augment = TrainAugment(image_size=32, policy=policy, per_image=per_image)
    one = augment(images, generator(3))
    assert one.shape == (8, 3, 32, 32)
    assert one.dtype == torch.float32
    assert torch.equal(one, augment(images, generator(3)))
    assert (policy == "none") == torch.equal(one, augment(images, generator(4)))


MAGNITUDE = 9


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_each_randaugment_operation_equals_torchvisions(images, name, sign):
    images = images.clamp(20, 235)  # AutoContrast leaves images alone that reach from 0 to 255
    policy = T.v2.RandAugment()
    bins, signed = policy._AUGMENTATION_SPACE[name]
    magnitude = bins(31, 36, 36)
    magnitude = 0.0 if magnitude is None else float(magnitude[MAGNITUDE]) * (sign if signed else 1.0)
    nearest, fill = T.InterpolationMode.NEAREST, policy._fill
    theirs = torch.stack(
        [policy._apply_image_or_video_transform(image, name, magnitude, nearest, fill) for image in images]
    )
    assert torch.equal(OPERATIONS[name](images, sign), theirs)
    assert name == "Identity" or not torch.equal(theirs, images), "a comparison that cannot fail"


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_each_randaugment_operation_is_within_a_level_of_torchvisions_first_version(images, name, sign):
    images = images.clamp(20, 235)
    magnitudes, signed = T.RandAugment()._augmentation_space(31, (36, 36))[name]
    magnitude = float(magnitudes[MAGNITUDE]) * (sign if signed else 1.0) if magnitudes.ndim else 0.0
    theirs = torch.stack(
        [
            T.autoaugment._apply_op(image, name, magnitude, T.InterpolationMode.NEAREST, None)
            for image in images
        ]
    )
    # The two versions round differently in these.
    levels = 1 if name in ("Color", "Sharpness", "AutoContrast") else 0
    assert (OPERATIONS[name](images, sign).int() - theirs.int()).abs().max() <= levels


def test_randaugment_knows_torchvisions_operations():
    assert set(OPERATIONS) == set(T.RandAugment()._augmentation_space(31, (36, 36)))


def test_randaugment_treats_an_image_alike_alone_and_in_a_batch(images):
    alone = [rand_augment(images[:1], draw_operations(1, generator(seed))) for seed in range(6)]
    assert len({a.numpy().tobytes() for a in alone}) > 3
    assert torch.equal(
        rand_augment(images, draw_operations(1, generator(2)).expand(-1, len(images)))[:1], alone[2]
    )


def test_randaugment_is_of_the_whole_square_and_comes_before_the_crop(images):
    augment = TrainAugment(image_size=32, policy="randaugment", scale=(1.0, 1.0))
    draws = generator(5)
    augmented = rand_augment(images, draw_operations(len(images), draws))
    boxes = crop_boxes(len(images), images.shape[-1], scale=(1.0, 1.0), generator=draws)
    cropped = crop(augmented, boxes, torch.zeros(len(images), dtype=torch.bool), 32)
    assert torch.equal(augment(images, generator(5)), normalise(cropped))


def test_evaluation_is_a_centre_crop_with_imagenets_mean_and_std(images):
    expected = T.Compose(
        [T.CenterCrop(32), T.ConvertImageDtype(torch.float32), T.Normalize(IMAGENET.mean, IMAGENET.std)]
    )
    torch.testing.assert_close(eval_transform(images, 32), expected(images), rtol=1e-4, atol=1e-5)
    assert normalise(images).dtype == torch.float32


def test_images_are_squashed_to_256_for_224():
    assert [resize_size(size) for size in (224, 64, 32)] == [256, 73, 37]


def test_an_unknown_policy_is_an_error():
    with pytest.raises(ValueError, match="policy is 'flop'"):
        TrainAugment(image_size=32, policy="flop")


def test_half_of_the_images_are_flipped():
    left_dark = torch.zeros(400, 3, 36, 36, dtype=torch.uint8)
    left_dark[..., 18:] = 255
    # A box of the whole image keeps the dark side, so that its place shows the flip.
    out = TrainAugment(image_size=32, scale=(0.999, 1.0))(left_dark, generator())
    flipped = out[..., 0].mean(dim=(1, 2)) > out[..., -1].mean(dim=(1, 2))
    assert 160 < int(flipped.sum()) < 240


def test_randaugment_draws_every_operation_about_equally_often(images):
    same = images[:1].expand(1400, -1, -1, -1)
    once_each = {
        OPERATIONS[name](images[:1], sign).numpy().tobytes() for name in OPERATIONS for sign in (1.0, -1.0)
    }
    # Two operations in a row: 1/196 of the images draw Identity twice, and are left alone.
    out = rand_augment(same, draw_operations(1400, generator()))
    untouched = sum(row.numpy().tobytes() == images[0].numpy().tobytes() for row in out)
    once = sum(row.numpy().tobytes() in once_each for row in out)
    assert untouched < 60
    assert 100 < once < 400  # one of the two was Identity: 27/196 of 1,400 is 193


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("policy", ["crop_flip", "none"])
def test_a_state_of_the_generator_gives_the_same_images_on_the_gpu(images, policy):
    augment = TrainAugment(image_size=32, policy=policy)
    there = augment(images.cuda(), generator()).cpu()
    torch.testing.assert_close(there, augment(images, generator()), atol=1e-2, rtol=1e-3)


def test_without_a_border_the_edge_goes_on_all_the_same(images):
    grid = torch.rand(8, 20, 20, 2, generator=generator()) * 2.6 - 1.3
    torch.testing.assert_close(
        sampled(images.float(), grid, border=False), sampled(images.float(), grid), atol=0.01, rtol=0
    )
