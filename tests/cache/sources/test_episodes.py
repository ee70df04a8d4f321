"""Episode files: what is read, how lazily, and what is said of files that are not as they should be."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import h5py
import numpy as np
import pytest
import torch
from conftest import Counted
from PIL import Image

from cache import EmbeddingCache
from cache.build.distinct_texts import check_told_apart
from cache.build.from_episodes import EpisodeOptions, cache_episode_features
from cache.maintain.convert import convert_cache
from cache.maintain.verify import verify_cache
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.sources.decoding import UnreadableImage
from cache.sources.episode_texts import episode_banks
from cache.sources.episodes import EpisodeFolder, object_name
from cache.sources.samples import labels_of
from cache.teacher.load import load_teacher
from distill.demo.episodes import ID_OBJECTS, OOD_OBJECTS, draw_episodes

CAMERAS = ("dict_str_base_camera", "dict_str_hand_camera")


def write_episode(file, key, objects, *, size=(20, 24), rng=None):
    """One episode as a stranger would write it."""
    rng = rng or np.random.default_rng(0)
    for camera in CAMERAS:
        file[f"{key}/{camera}/dict_str_rgb"] = rng.integers(0, 256, size=(*size, 3), dtype=np.uint8)
        file[f"{key}/{camera}/dict_str_depth"] = rng.uniform(0.2, 2, size=(*size, 1)).astype(np.float32)
    file[f"{key}/model_ids"] = np.array([name.encode() for name in objects])


@pytest.fixture
def folder(tmp_path):
    """A small folder of episodes of different resolutions, with gzip as h5py users like it."""
    out = tmp_path / "episodes"
    out.mkdir()
    rng = np.random.default_rng(1)
    with h5py.File(out / "train.h5", "w") as file:
        write_episode(file, "traj_1", ["011_banana", "025_mug"], rng=rng)
        write_episode(file, "traj.0", ["025_mug"], size=(48, 64), rng=rng)
    with h5py.File(out / "val.h5", "w") as file:
        write_episode(file, "traj_9", ["013_apple", "011_banana"], rng=rng)
        write_episode(file, "traj_8", ["005_tomato_soup_can"], rng=rng)
    return out


def test_objects_are_id_sorted_then_ood_sorted_and_labels_say_which_are_there(folder):
    scanned = EpisodeFolder.scan(folder)
    assert scanned.split("train").classes == ("011_banana", "025_mug")
    assert scanned.class_names == ("011_banana", "025_mug", "005_tomato_soup_can", "013_apple")
    assert [episode.key for episode in scanned.split("train").all()] == ["traj.0", "traj_1"]
    assert _numbers(scanned.split("train")) == [[0, 1], [1, 1]]
    assert _numbers(scanned.split("val")) == [[0, 0, 1, 0], [1, 0, 0, 1]]


def _numbers(source):
    return labels_of(source.all(), source.classes, multi_label=source.multi_label).tolist()


@pytest.mark.parametrize(
    ("model_id", "name"),
    [("011_banana", "banana"), ("005_tomato_soup_can", "tomato soup can"), ("mug", "mug")],
)
def test_an_objects_name_is_what_follows_its_number(model_id, name):
    assert object_name(model_id) == name


def test_frames_are_read_as_they_are_in_any_resolution(folder):
    first, second = EpisodeFolder.scan(folder).split("train").all()
    assert first.frames()["hand"].rgb.shape == (48, 64, 3)
    with open_hdf5(folder / "train.h5") as file:
        base = file["traj_1"]["dict_str_base_camera"]
        np.testing.assert_array_equal(second.frames()["base"].rgb, base["dict_str_rgb"][()])
        np.testing.assert_array_equal(second.frames()["base"].depth, base["dict_str_depth"][()])


def test_scanning_reads_no_picture(folder, monkeypatch):
    read = []
    original = h5py.Dataset.__getitem__

    def noted(self, *given, **more):
        read.append(self.name)
        return original(self, *given, **more)

    monkeypatch.setattr(h5py.Dataset, "__getitem__", noted)
    EpisodeFolder.scan(folder)
    assert not [name for name in read if not name.endswith("model_ids")]


def broken(folder, change):
    with h5py.File(folder / "train.h5", "a") as file:
        change(file["traj_1"])
    with pytest.raises(UserError) as error:
        EpisodeFolder.scan(folder)
    return str(error.value)


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("dict_str_hand_camera/dict_str_depth", None, "has no dict_str_hand_camera/dict_str_depth"),
        ("dict_str_base_camera", None, "has no dict_str_base_camera/dict_str_rgb"),
        ("model_ids", None, "has no model_ids"),
        ("dict_str_base_camera/dict_str_rgb", np.zeros((4, 4, 4), np.uint8), "uint8 [4, 4, 4], expected"),
        ("dict_str_base_camera/dict_str_rgb", np.zeros((4, 4, 3), np.float32), "expected uint8 [H, W, 3]"),
        ("dict_str_base_camera/dict_str_rgb", np.zeros((4, 4, 3), np.uint16), "expected uint8 [H, W, 3]"),
        ("dict_str_hand_camera/dict_str_depth", np.zeros((4, 4), np.float32), "expected float32 [H, W, 1]"),
        ("model_ids", np.arange(3), "is of int64, expected texts"),
    ],
)
def test_a_missing_or_wrong_part_names_the_file_and_the_episode(folder, part, value, message):
    def change(episode):
        del episode[part]
        if value is not None:
            episode[part] = value

    text = broken(folder, change)
    assert message in text
    assert "train.h5, episode 'traj_1'" in text


def test_a_file_that_is_missing_empty_or_no_hdf5_is_said(folder, tmp_path):
    (folder / "val.h5").rename(folder / "test.h5")
    with pytest.raises(UserError, match=r"no file val\.h5.*it has test\.h5, train\.h5"):
        EpisodeFolder.scan(folder, require=("train", "ood_test"))
    assert "ood_test" not in EpisodeFolder.scan(folder).splits
    (folder / "train.h5").rename(folder / "other.h5")
    with pytest.raises(UserError, match=r"no file train\.h5.*it has other\.h5, test\.h5"):
        EpisodeFolder.scan(folder)
    (folder / "other.h5").rename(folder / "train.h5")
    (folder / "val.h5").write_bytes(b"not HDF5 at all")
    with pytest.raises(UserError, match=r"val\.h5 is no readable HDF5 file"):
        EpisodeFolder.scan(folder)
    h5py.File(folder / "val.h5", "w").close()
    with pytest.raises(UserError, match=r"val\.h5 holds no episode"):
        EpisodeFolder.scan(folder)
    with pytest.raises(UserError, match="does not exist"):
        EpisodeFolder.scan(tmp_path / "nowhere")


def test_an_id_test_of_other_objects_is_refused(folder):
    with h5py.File(folder / "val_on_train.h5", "w") as file:
        write_episode(file, "traj_5", ["077_rubiks_cube"])
    with pytest.raises(UserError, match=r"shows 077_rubiks_cube, train\.h5 does not"):
        EpisodeFolder.scan(folder)


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


def test_texts_are_the_methods_prompts(folder, tmp_path):
    descriptions = tmp_path / "said.txt"
    descriptions.write_text("It is yellow.\nIt has a handle.\nIt is a tin.\nIt is round.\n")
    scanned = EpisodeFolder.scan(folder)
    banks = {bank.name: bank for bank in episode_banks(scanned, descriptions=descriptions)}
    assert set(banks) == {"labels", "negative_labels", "descriptions"}
    assert banks["labels"].texts[2] == "You can find a tomato soup can in this image, except a robot arm."
    assert (
        banks["descriptions"].texts[0]
        == "You can find a banana in this image, except a robot arm. It is yellow."
    )
    assert banks["negative_labels"].classes == scanned.class_names
    plain = {
        bank.name: bank
        for bank in episode_banks(scanned, templates=["a {}", "the {}"], negative_templates=["nothing"])
    }
    assert plain["labels"].texts[2:4] == ("a mug", "the mug")
    assert plain["labels"].classes[2:4] == (scanned.class_names[1],) * 2
    assert set(plain["negative_labels"].texts) == {"nothing"}
    for wrong in ({"templates": ["nothing"]}, {"negative_templates": ["{} {}"]}):
        with pytest.raises(UserError, match="template"):
            episode_banks(scanned, **wrong)
    lines = [f"{name}\tIt is {i}." for i, name in reversed(list(enumerate(scanned.class_names)))]
    descriptions.write_text("\n".join(lines))
    named = {bank.name: bank for bank in episode_banks(scanned, negative_descriptions=descriptions)}
    assert [text[-8:] for text in named["negative_descriptions"].texts] == [f"It is {i}." for i in range(4)]
    assert not named["negative_descriptions"].lines
    descriptions.write_text("\n".join(lines).replace("011_banana", "011_bananna"))
    with pytest.raises(UserError, match=r"'011_bananna' is not a class\. Fix: did you mean '011_banana'"):
        episode_banks(scanned, descriptions=descriptions)
    descriptions.write_text("only one\n")
    with pytest.raises(UserError, match="has 1 descriptions, but there are 4 classes"):
        episode_banks(scanned, descriptions=descriptions)


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


def test_drawn_episodes_are_real_files_of_that_format(tmp_path):
    counts = draw_episodes(tmp_path / "one", seed=3, image_size=24, train=14, id_test=5, ood_test=24)
    assert counts == {"train": 14, "id_test": 5, "ood_test": 24}
    scanned = EpisodeFolder.scan(tmp_path / "one")
    id_objects = scanned.split("train").classes
    assert len(id_objects) == ID_OBJECTS
    assert len(scanned.class_names) == ID_OBJECTS + OOD_OBJECTS
    for episode in scanned.split("ood_test").all():
        assert 1 <= len(episode.labels) <= 3
        assert set(episode.labels) - set(id_objects)
    frames = scanned.split("train").all()[0].frames()
    assert frames["base"].rgb.shape == (24, 24, 3)
    assert 0.2 < float(frames["hand"].depth.mean()) < float(frames["base"].depth.mean()) < 1.5
    draw_episodes(tmp_path / "two", seed=3, image_size=24, train=14, id_test=5, ood_test=24)
    again = EpisodeFolder.scan(tmp_path / "two").split("ood_test").all()[7].frames()
    np.testing.assert_array_equal(again["hand"].rgb, scanned.split("ood_test").all()[7].frames()["hand"].rgb)
    with pytest.raises(UserError, match="train is to have 13 episodes"):
        draw_episodes(tmp_path / "three", train=13)
    assert not (tmp_path / "three").exists()
    shutil.rmtree(tmp_path / "one")
