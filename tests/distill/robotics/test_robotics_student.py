"""Students of eight channels: any model by name, its weights kept, its last feature map found."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cache.runtime.errors import UserError
from cache.sources.episodes import EpisodeFolder
from distill.data.frames import EpisodeFrames, FrameAugment, normalise_frames
from distill.robotics.student import build_episode_student
from distill.student.build import build_student


def frames_of(count=2, side=32):
    return torch.randn(count, 8, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    "arch",
    ["efficientnet_b0", "resnet18", "mobilenet_v3_small", "timm:test_resnet", "timm:mobilenetv3_small_050", "timm:tf_efficientnet_lite0", "timm:test_vit"],
)  # fmt: skip
def test_models_of_both_libraries_take_eight_channels(arch):
    side = 160 if arch == "timm:test_vit" else 64
    student = build_episode_student(arch, embed_dim=12, image_size=side).eval()
    embeddings, located = student(frames_of(side=side))
    assert embeddings.shape == (2, 12)
    assert located is None
    changed = frames_of(side=side)
    changed[:, 7] += 1  # the hand camera's depth
    assert not torch.equal(student(changed)[0], embeddings)


@pytest.mark.parametrize(
    ("arch", "side", "locations"),
    [("efficientnet_b0", 96, 9), ("resnet18", 64, 4), ("densenet121", 64, 4), ("mobilenet_v3_small", 64, 4), ("timm:resnet10t", 64, 4), ("timm:mobilenetv3_small_050", 96, 9), ("timm:convnext_atto", 64, 4), ("efficientnet_b0", 32, 1)],
)  # fmt: skip
def test_locations_are_those_of_the_last_feature_map(arch, side, locations):
    student = build_episode_student(arch, embed_dim=12, image_size=side, local=True)
    assert student(frames_of(side=side))[1].shape == (2, locations, 12)


@torch.inference_mode()
def test_the_mean_over_locations_is_what_the_pooled_head_would_say():
    student = build_episode_student("resnet18", embed_dim=12, image_size=64, local=True).eval()
    student.projection.weight.copy_(student.backbone.fc.weight[:, :, None, None])
    student.projection.bias.copy_(student.backbone.fc.bias)
    embeddings, located = student(frames_of(side=64))
    torch.testing.assert_close(located.mean(dim=1), embeddings, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_given_weights_see_a_picture_in_both_cameras_as_they_did(tmp_path):
    torch.manual_seed(0)
    photo_student = build_student("resnet18", embed_dim=12, image_size=64).eval()
    torch.save(photo_student.state_dict(), tmp_path / "weights.pt")
    student = build_episode_student(
        "resnet18", embed_dim=12, image_size=64, start=str(tmp_path / "weights.pt")
    ).eval()
    picture = torch.randn(2, 3, 64, 64)
    no_depth = torch.zeros(2, 1, 64, 64)
    frames = torch.cat([picture, no_depth, picture, no_depth], dim=1)
    torch.testing.assert_close(student(frames)[0], photo_student(picture), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("arch", "options", "message"),
    [
        ("resnet81", {}, "no student is called 'resnet81'"),
        ("timm:test_vit", {"local": True, "image_size": 160}, "has no feature map"),
        ("timm:mixer_s32_224", {"local": True, "image_size": 224}, "has no feature map"),
    ],
)
def test_what_cannot_be_built_is_said_in_one_line(arch, options, message):
    with pytest.raises(UserError, match=message):
        build_episode_student(arch, embed_dim=12, **{"image_size": 64, **options})


def test_frames_are_base_then_hand_each_rgb_then_depth_resized_bicubically(episodes):
    sample = EpisodeFolder.scan(episodes).split("train").all()[1]
    frames, raw = sample.frames(), EpisodeFrames(32)(sample)
    assert raw.shape == EpisodeFrames(32).shape == (8, 32, 32)
    np.testing.assert_allclose(raw[0:3].permute(1, 2, 0), frames["base"].rgb / 255, atol=1e-6)
    np.testing.assert_array_equal(raw[3], frames["base"].depth[..., 0])
    np.testing.assert_allclose(raw[4:7].permute(1, 2, 0), frames["hand"].rgb / 255, atol=1e-6)
    np.testing.assert_array_equal(raw[7], frames["hand"].depth[..., 0])
    from torchvision.transforms.v2.functional import InterpolationMode, resize

    expected = resize(raw, [20, 20], interpolation=InterpolationMode.BICUBIC, antialias=False)
    torch.testing.assert_close(EpisodeFrames(20)(sample), expected, rtol=1e-4, atol=1e-5)


def test_normalisation_leaves_depth_alone():
    frames = torch.rand(2, 8, 4, 4)
    normalised = normalise_frames(frames)
    torch.testing.assert_close(normalised[:, [3, 7]], frames[:, [3, 7]])
    torch.testing.assert_close(normalised[:, 0], (frames[:, 0] - 0.485) / 0.229)
    torch.testing.assert_close(normalised[:, 6], (frames[:, 6] - 0.406) / 0.225)


def test_a_flip_mirrors_both_cameras_of_an_episode_together():
    frames = torch.rand(64, 8, 4, 4)
    flipped = FrameAugment()(frames, torch.Generator().manual_seed(0))
    plain, mirrored = normalise_frames(frames), normalise_frames(frames.flip(-1))
    is_plain = (flipped == plain).flatten(1).all(dim=1)
    is_mirrored = (flipped == mirrored).flatten(1).all(dim=1)
    assert (is_plain ^ is_mirrored).all()
    assert 16 < int(is_mirrored.sum()) < 48
    torch.testing.assert_close(FrameAugment(policy="none")(frames, torch.Generator()), plain)
