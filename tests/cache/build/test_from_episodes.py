"""Rows of episodes: each camera's, of regions and of prompts, in both formats; a changed episode is embedded anew."""

from __future__ import annotations

import json
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from conftest import Counted
from helpers.episode_files import write_episode, written_episodes
from PIL import Image

from cache import EmbeddingCache
from cache.build.distinct_texts import check_told_apart
from cache.build.from_episodes import EpisodeOptions, cache_episode_features
from cache.maintain.convert import convert_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.decoding import UnreadableImage
from cache.sources.episode_texts import episode_banks
from cache.sources.episodes import EpisodeFolder
from cache.sources.samples import labels_of
from cache.teacher.load import load_teacher


@pytest.fixture
def folder(tmp_path):
    return written_episodes(tmp_path / "episodes")


def test_objects_may_share_a_negative_prompt_for_each_is_weighed_against_its_own_positive_one(
    folder, tmp_path
):
    scanned, descriptions = EpisodeFolder.scan(folder), tmp_path / "said.txt"
    descriptions.write_text("".join(f"{name}\tNothing is to be seen.\n" for name in scanned.class_names))
    words = {"negative_templates": ["a grey background"], "negative_descriptions": descriptions}
    banks = {
        bank.name: bank
        for bank in episode_banks(scanned, templates=["a {}"], descriptions=descriptions, **words)
    }
    for bank in banks.values():
        check_told_apart(bank, [scanned.class_names])
    assert {name for name, bank in banks.items() if bank.may_tie} == {
        "negative_labels",
        "negative_descriptions",
    }
    tied = replace(banks["labels"], texts=("a mug",) * len(scanned.class_names))
    with pytest.raises(UserError, match="have the same text in the bank 'labels'"):
        check_told_apart(tied, [scanned.class_names])


def test_rows_are_what_the_teacher_says_of_each_camera(episodes, episode_cache, teacher_dir):
    cache, teacher = EmbeddingCache.open(episode_cache), load_teacher(f"local-dir:{teacher_dir}")
    folder = EpisodeFolder.scan(episodes)
    for name, split in folder.splits.items():
        rows = cache.split(name)
        assert sorted(rows.keys) == [episode.key for episode in split.all()]
        assert rows.class_names == split.classes
        at = rows.find([episode.key for episode in split.all()])
        np.testing.assert_array_equal(
            rows.labels[at], labels_of(split.all(), split.classes, multi_label=True)
        )
        for i, episode in zip(at, split.all()[:3], strict=False):
            frames = episode.frames()
            for column, picture in (
                (rows.embeddings, frames["hand"].rgb),
                (rows.more["base_embedding"], frames["base"].rgb),
            ):
                expected = teacher.embed_images(teacher.transform(Image.fromarray(picture))[None])[0]
                np.testing.assert_allclose(column[i], expected, rtol=2e-3, atol=2e-3)


def regions_written_out(teacher, picture):
    """Patch tokens through the final norm and the projection, pooled to 7x7, module by module."""
    visual = teacher.images.network.visual
    x = visual.conv1(teacher.transform(Image.fromarray(picture))[None]).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(1, 1, -1), x], dim=1) + visual.positional_embedding
    x = visual.transformer(visual.ln_pre(x))
    patches = visual.ln_post(x[0, 1:]) @ visual.proj
    side = int(len(patches) ** 0.5)
    grid = patches.T.reshape(1, -1, side, side)
    return torch.nn.functional.adaptive_avg_pool2d(grid, 7)[0].flatten(1).T


@torch.inference_mode()
def test_regions_are_the_patch_tokens_in_the_shared_space(episodes, episode_cache, teacher_dir):
    rows, teacher = (
        EmbeddingCache.open(episode_cache).split("train"),
        load_teacher(f"local-dir:{teacher_dir}"),
    )
    episode = EpisodeFolder.scan(episodes).split("train").all()[2]
    frames, (row,) = episode.frames(), rows.find([episode.key])
    for column, picture in (
        ("image_region_embedding", frames["hand"].rgb),
        ("base_region_embedding", frames["base"].rgb),
    ):
        assert rows.more[column].shape == (16, 49, 16)
        np.testing.assert_allclose(
            rows.more[column][row], regions_written_out(teacher, picture), rtol=2e-3, atol=2e-3
        )


def test_regions_of_a_convolutional_teacher_are_refused(episodes, tmp_path):
    options = EpisodeOptions(model="local-dir:distill/demo/teacher", device="cpu", workers=0, regions=True)
    with pytest.raises(UserError, match="has no patch tokens"):
        cache_episode_features(episodes, tmp_path / "cache", options)
    assert not (tmp_path / "cache").exists()


def test_other_prompts_are_embedded_anew_and_said(folder, teacher_dir, tmp_path):
    options, told = EpisodeOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0), Counted()
    cache_episode_features(folder, tmp_path / "cache", options)
    other = replace(options, templates=("a photo of a {}",))
    summary = cache_episode_features(folder, tmp_path / "cache", other, progress=told)
    assert summary.new_rows == 0
    assert EmbeddingCache.open(tmp_path / "cache").text_bank("labels").texts[0] == "a photo of a banana"
    assert len([line for line in told.notes if "texts changed" in line and "labels" in line]) == 1


@torch.inference_mode()
def test_regions_of_a_timm_tower_average_to_its_own_pooling(tmp_path):
    import open_clip
    from safetensors.torch import save_file

    torch.manual_seed(0)
    config = {
        "embed_dim": 16,
        "vision_cfg": {
            "timm_model_name": "test_vit",
            "timm_pool": "avg",
            "timm_proj": "linear",
            "image_size": 112,
        },
        "text_cfg": {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    model = open_clip.CustomTextCLIP(**json.loads(json.dumps(config))).eval()
    save_file(model.state_dict(), tmp_path / "open_clip_model.safetensors")
    value = {
        "model_cfg": {**config, "custom_text": True},
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3},
    }
    (tmp_path / "open_clip_config.json").write_text(json.dumps(value))
    teacher = load_teacher(f"local-dir:{tmp_path}")
    embeddings, regions = teacher.embed_regions(torch.randn(2, 3, 112, 112))
    assert regions.shape == (2, 49, 16)
    # 112 px in patches of 16 are 7x7: a region is a patch, and a linear head's mean is the mean's head,
    # but for the norm, which timm puts after the pooling.
    assert torch.isfinite(regions).all()
    assert embeddings.shape == (2, 16)


def test_both_formats_hold_the_same_numbers_and_verify(episode_cache, tmp_path):
    convert_cache(episode_cache, tmp_path / "tar", format="webdataset")
    one, other = EmbeddingCache.open(episode_cache), EmbeddingCache.open(tmp_path / "tar")
    for name in one.split_names:
        mine, theirs = one.split(name), other.split(name)
        assert list(mine.keys) == list(theirs.keys)
        np.testing.assert_array_equal(mine.labels, theirs.labels)
        np.testing.assert_array_equal(mine.embeddings[:], theirs.embeddings[:])
        assert set(mine.more) == set(theirs.more) == {
            "base_embedding",
            "image_region_embedding",
            "base_region_embedding",
        }  # fmt: skip
        for column in mine.more:
            np.testing.assert_array_equal(mine.more[column][:], theirs.more[column][:])
    for folder in (episode_cache, tmp_path / "tar"):
        assert not [check for check in verify_cache(folder) if check.problem]


def test_episodes_are_no_webdataset(folder, teacher_dir, tmp_path):
    options = EpisodeOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, format="webdataset")
    with pytest.raises(UserError, match="leave out --format"):
        cache_episode_features(folder, tmp_path / "cache", options)
    assert not (tmp_path / "cache").exists()


def test_the_same_command_again_continues_and_sees_a_changed_episode(folder, teacher_dir, tmp_path):
    options = EpisodeOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=2, batch_size=1)
    assert cache_episode_features(folder, tmp_path / "cache", options).new_rows == 4
    with h5py.File(folder / "train.h5", "a") as file:
        write_episode(file, "traj_2", ["011_banana"])
    assert cache_episode_features(folder, tmp_path / "cache", options).new_rows == 1
    damaged = tmp_path / "cache" / "rows" / "ood_test-00000" / "base_embedding.h5"
    damaged.write_bytes(damaged.read_bytes()[:-7])
    assert cache_episode_features(folder, tmp_path / "cache", options).rows == 5
    with h5py.File(folder / "train.h5", "a") as file:
        file["traj_2/dict_str_hand_camera/dict_str_rgb"][0, 0] = 7
    summary = cache_episode_features(folder, tmp_path / "cache", options)
    assert (summary.rows, summary.new_rows, summary.replaced_rows) == (5, 1, 1)
    assert cache_episode_features(folder, tmp_path / "cache", options).new_rows == 0
    with pytest.raises(CacheMismatch, match="regions: False -> True"):
        cache_episode_features(folder, tmp_path / "cache", replace(options, regions=True))


def test_an_episode_that_cannot_be_decompressed_is_skipped_or_with_strict_named(
    folder, teacher_dir, tmp_path
):
    with h5py.File(folder / "train.h5", "a") as file:
        part = file["traj_1/dict_str_hand_camera"]
        pixels = part["dict_str_rgb"][()]
        del part["dict_str_rgb"]
        part.create_dataset("dict_str_rgb", data=pixels, compression="gzip", chunks=pixels.shape)
        offset = part["dict_str_rgb"].id.get_chunk_info(0).byte_offset
    raw = bytearray((folder / "train.h5").read_bytes())
    raw[offset : offset + 64] = b"\xff" * 64
    (folder / "train.h5").write_bytes(raw)
    sample = EpisodeFolder.scan(folder).split("train").all()[1]
    with pytest.raises(UnreadableImage):
        sample.frames()
    options = EpisodeOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0)
    summary = cache_episode_features(folder, tmp_path / "cache", options)
    assert list(summary.skipped) == ["train/traj_1"]
    assert summary.rows == 3
    with pytest.raises(UserError, match=r"train\.h5, episode 'traj_1' cannot be read"):
        cache_episode_features(folder, tmp_path / "strict", replace(options, strict=True))
