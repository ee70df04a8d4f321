"""Files of other people's episodes: a mapping file says what they call their cameras, depths and objects."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import h5py
import numpy as np
import pytest

from cache import EmbeddingCache
from cache.build.from_episodes import EpisodeOptions, cache_episode_features
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources.decoding import UnreadableImage
from cache.sources.episode_keys import RESEARCH_KEYS, EpisodeKeys
from cache.sources.episodes import EpisodeFolder

ROBOMIMIC = """
episodes = "data"
objects = "@objects"
step = -1
[[cameras]]
rgb = "obs/agentview_image"
axes = "THWC"
"""
THREE_CAMERAS = """
objects = "labels/names"
main = "wrist"
[[cameras]]
name = "left"
rgb = "left/rgb"
[[cameras]]
name = "wrist"
rgb = "wrist/rgb"
depth = "wrist/depth"
axes = "CHW"
depth_axes = "HW"
white = 1.0
[[cameras]]
name = "right"
rgb = "right/rgb"
depth = "right/depth_mm"
depth_scale = 0.001
"""
OBJECTS = (["red_mug"], ["red_mug", "blue_bowl"], ["blue_bowl"])
NEW = (["green_plate", "red_mug"], ["green_plate"])


def write_robomimic(path, shown, rng):
    """Groups data/demo_N, pictures of all times, objects as JSON in an attribute."""
    with h5py.File(path, "w") as file:
        for number, names in enumerate(shown):
            demo = file.create_group(f"data/demo_{number}")
            times = 3 + number
            demo["obs/agentview_image"] = rng.integers(0, 256, size=(times, 20, 24, 3), dtype=np.uint8)
            demo["actions"] = np.zeros((times, 7))
            demo.attrs["objects"] = json.dumps(names)
        file["mask/train"] = np.array([b"demo_0"])


def write_three_cameras(path, shown, rng):
    """Left without depth; wrist of floats, channels first, depth in metres; right with depth in millimetres."""
    with h5py.File(path, "w") as file:
        for number, names in enumerate(shown):
            episode = file.create_group(f"episode_{number}")
            episode["left/rgb"] = rng.integers(0, 256, size=(16, 16, 3), dtype=np.uint8)
            episode["wrist/rgb"] = rng.uniform(0, 1, size=(3, 20, 28)).astype(np.float32)
            episode["wrist/depth"] = rng.uniform(0.2, 2, size=(20, 28)).astype(np.float32)
            episode["right/rgb"] = rng.integers(0, 256, size=(12, 16, 3), dtype=np.uint8)
            episode["right/depth_mm"] = rng.integers(200, 2000, size=(12, 16, 1)).astype(np.uint16)
            episode["labels/names"] = names  # texts of any length


def folder_of(root: Path, write, mapping: str) -> tuple[Path, Path]:
    """Write train.h5, val.h5 and the mapping file below a folder; return the data and the mapping."""
    (root / "data").mkdir(parents=True)
    rng = np.random.default_rng(0)
    write(root / "data" / "train.h5", OBJECTS * 3, rng)
    write(root / "data" / "val.h5", NEW * 2, rng)
    (root / "keys.toml").write_text(mapping)
    return root / "data", root / "keys.toml"


def test_one_rgb_camera_of_all_times_is_read_at_the_step_that_is_asked_for(tmp_path):
    data, mapping = folder_of(tmp_path, write_robomimic, ROBOMIMIC)
    folder = EpisodeFolder.scan(data, EpisodeKeys.load(mapping))
    assert folder.class_names == ("blue_bowl", "red_mug", "green_plate")
    assert [sample.labels for sample in folder.split("train").all()[:3]] == [
        folder.split("train").classes[1:],
        folder.split("train").classes,
        folder.split("train").classes[:1],
    ]
    sample = folder.split("train").all()[1]
    (frame,) = sample.frames().values()
    with h5py.File(data / "train.h5") as file:
        np.testing.assert_array_equal(frame.rgb, file["data/demo_1/obs/agentview_image"][-1])
    assert frame.depth is None
    assert sample.views == ("image",)
    assert folder.keys.with_depth == (False,)


def test_three_cameras_of_different_forms_become_rgb_bytes_and_depth_in_one_unit(tmp_path):
    data, mapping = folder_of(tmp_path, write_three_cameras, THREE_CAMERAS)
    sample = EpisodeFolder.scan(data, EpisodeKeys.load(mapping)).split("train").all()[0]
    frames = sample.frames()
    assert list(frames) == ["left", "wrist", "right"]
    with h5py.File(data / "train.h5") as file:
        episode = file["episode_0"]
        np.testing.assert_array_equal(frames["left"].rgb, episode["left/rgb"])
        wrist = (episode["wrist/rgb"][()].transpose(1, 2, 0) * 255).round()
        np.testing.assert_array_equal(frames["wrist"].rgb, wrist.astype(np.uint8))
        np.testing.assert_array_equal(frames["wrist"].depth[..., 0], episode["wrist/depth"])
        metres = episode["right/depth_mm"][()] / 1000
        np.testing.assert_allclose(frames["right"].depth, metres, rtol=1e-6)
    assert frames["right"].depth.dtype == np.float32
    assert sample.views == ("image", "left", "right")
    assert [picture.size for picture in sample.pictures()] == [(28, 20), (16, 16), (16, 12)]


def test_the_cache_keeps_the_mapping_and_has_a_column_a_camera(tmp_path, teacher_dir):
    data, mapping = folder_of(tmp_path, write_three_cameras, THREE_CAMERAS)
    options = {"model": f"local-dir:{teacher_dir}", "device": "cpu", "workers": 0}
    cache_episode_features(data, tmp_path / "cache", EpisodeOptions(episode_keys=mapping, **options))
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert cache.manifest.spec.episode_keys == EpisodeKeys.load(mapping)
    assert set(cache.split("train").more) == {"left_embedding", "right_embedding"}
    mapping.unlink()  # given once
    again = cache_episode_features(data, tmp_path / "cache", EpisodeOptions(**options))
    assert (again.rows, again.new_rows) == (13, 0)
    mapping.write_text(THREE_CAMERAS.replace('main = "wrist"\n', ""))
    with pytest.raises(CacheMismatch, match="episode keys: of another mapping file"):
        cache_episode_features(data, tmp_path / "cache", EpisodeOptions(episode_keys=mapping, **options))


def test_depth_and_every_camera_belong_to_what_a_row_was_made_from(tmp_path):
    data, mapping = folder_of(tmp_path, write_three_cameras, THREE_CAMERAS)
    sample = EpisodeFolder.scan(data, EpisodeKeys.load(mapping)).split("train").all()[0]
    seen = {sample.identity()[0]}
    for part in ("left/rgb", "wrist/depth", "right/depth_mm"):
        with h5py.File(data / "train.h5", "a") as file:
            file[f"episode_0/{part}"][0, 0] += 1
        seen.add(sample.identity()[0])
    assert len(seen) == 4


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("wrist/rgb", "wrist/image", "episode 'episode_0' has no wrist/image (it has labels, labels/names, left, left/rgb"),
        ("wrist/depth", "wrist/rgb", "wrist/rgb is float32 [3, 20, 28], expected float32 [H, W] (wrist/rgb has"),
        ("labels/names", "@names", "episode 'episode_0' has no @names (it has"),
        ("labels/names", "left@names", "episode 'episode_0' has no left@names (it has"),
        ("labels/names", "left/rgb", "left/rgb is of uint8, expected texts"),
        ('objects = "', 'episodes = "data"\nobjects = "', "train.h5 has no group data (it has episode_0"),
        ('axes = "CHW"', 'axes = "HWC"', "wrist/rgb is float32 [3, 20, 28], expected numbers [H, W, 3]"),
        ('rgb = "left/rgb"', 'rgb = "left/rgb"\nwhite = 1.0', "expected numbers [H, W, 3] (bytes are 255 where full"),
        ("white = 1.0", "white = 255", "wrist/rgb is float32 [3, 20, 28], expected uint8 [3, H, W]"),
        ("depth_scale = 0.001", "depth_scale = 1", "right/depth_mm is uint16 [12, 16, 1], expected float32"),
        ('depth_axes = "HW"', 'depth_axes = "HWC"', "wrist/depth is float32 [20, 28], expected float32 [H, W, 1]"),
    ],
)  # fmt: skip
def test_a_key_that_is_missing_or_of_another_form_is_one_line_with_file_and_key(tmp_path, old, new, message):
    data, mapping = folder_of(tmp_path, write_three_cameras, THREE_CAMERAS)
    mapping.write_text(THREE_CAMERAS.replace(old, new, 1))
    with pytest.raises(UserError) as error:
        EpisodeFolder.scan(data, EpisodeKeys.load(mapping))
    assert message in str(error.value)
    assert "train.h5" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("brightest", [255.0, float("nan")])
def test_a_picture_far_above_white_is_unreadable_and_not_all_white(tmp_path, brightest):
    data, mapping = folder_of(tmp_path, write_three_cameras, THREE_CAMERAS)
    with h5py.File(data / "train.h5", "a") as file:
        file[f"{min(file)}/wrist/rgb"][0, 0, 0] = brightest
    sample = EpisodeFolder.scan(data, EpisodeKeys.load(mapping)).splits["train"].all()[0]
    with pytest.raises(UnreadableImage, match=r"wrist/rgb is up to (255|nan), and white is 1"):
        sample.frames()


def test_a_step_that_an_episode_does_not_have_is_said(tmp_path):
    data, mapping = folder_of(tmp_path, write_robomimic, ROBOMIMIC.replace("-1", "3"))
    with pytest.raises(UserError, match=r"demo_0.*obs/agentview_image.*has 3 times, and step is 3"):
        EpisodeFolder.scan(data, EpisodeKeys.load(mapping))


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ("objects = 3\ncameras = []", "objects of the mapping is 3"),
        ('objects = "a"', "the mapping has no cameras"),
        ('cameras = [{rgb = "a"}]', "the mapping has no objects"),
        ('objects = "a"\ncameras = []', "there are 0 cameras"),
        ('objects = "a"\ncameras = [{depth = "a"}]', "camera 1 has no rgb"),
        ('objects = "a"\ncameras = [{rgb = "a", deth = "a"}]', "did you mean 'depth'"),
        ('objects = "a"\ncameras = [{rgb = "a", axes = "HW"}]', "axes is 'HW'"),
        ('objects = "a"\ncameras = [{rgb = "a", white = 0}]', "white is 0"),
        ('objects = "a"\ncameras = [{rgb = "a", name = "image"}]', "cannot name a column"),
        ('objects = "a"\ncameras = [{rgb = "a", name = "../x"}]', "cannot name a column"),
        ('objects = "a"\ncameras = [{rgb = "a", name = "b"}, {rgb = "a", name = "b"}]', "2 cameras of 1 names"),
        ('objects = "a"\ncameras = [{rgb = "../a"}]', "no place in a folder"),
        ('objects = "/a"\ncameras = [{rgb = "a"}]', "no place in a folder"),
        ('main = "b"\nobjects = "a"\ncameras = [{rgb = "a"}]', "main is 'b', and the cameras are camera_1"),
        ("objects = [", "maps no keys"),
    ],
)  # fmt: skip
def test_a_mapping_that_cannot_be_meant_is_one_line(tmp_path, mapping, message):
    (tmp_path / "keys.toml").write_text(mapping)
    with pytest.raises(UserError) as error:
        EpisodeKeys.load(tmp_path / "keys.toml")
    assert message in str(error.value)
    assert "keys.toml maps no keys" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("part", ["obs/agentview_image", "@objects"])
def test_no_key_leads_out_of_the_file(tmp_path, part):
    data, mapping = folder_of(tmp_path, write_robomimic, ROBOMIMIC)
    keys = EpisodeKeys.load(mapping)
    sample = EpisodeFolder.scan(data, keys).split("train").all()[0]
    with h5py.File(data / "train.h5", "a") as file:
        if part.startswith("@"):
            file.move("data", "elsewhere")
            file["data"] = h5py.SoftLink("/elsewhere")
        else:
            del file[f"data/demo_0/{part}"]
            file[f"data/demo_0/{part}"] = h5py.ExternalLink("val.h5", f"data/demo_0/{part}")
    with pytest.raises(UserError, match=r"train\.h5.* has no "):
        EpisodeFolder.scan(data, keys)
    with pytest.raises(UnreadableImage):
        sample.frames()


def test_what_lies_beside_the_episodes_and_is_no_group_is_one_line(tmp_path):
    data, mapping = folder_of(tmp_path, write_robomimic, ROBOMIMIC)
    with h5py.File(data / "train.h5", "a") as file:
        file["data/total"] = np.zeros(3)
    with pytest.raises(UserError, match=r"train\.h5, episode 'total' has no obs/agentview_image"):
        EpisodeFolder.scan(data, EpisodeKeys.load(mapping))


def test_a_list_of_objects_that_are_no_texts_is_one_line(tmp_path):
    data, mapping = folder_of(tmp_path, write_robomimic, ROBOMIMIC)
    with h5py.File(data / "train.h5", "a") as file:
        file["data/demo_0"].attrs["objects"] = json.dumps(["red_mug", {"name": "blue_bowl"}])
    with pytest.raises(
        UserError, match=r"episode 'demo_0': @objects lists \{'name': 'blue_bowl'\}, which is no"
    ):
        EpisodeFolder.scan(data, EpisodeKeys.load(mapping))


def test_keys_survive_json_and_the_research_codes_own_are_the_default():
    assert EpisodeKeys.from_json(json.loads(json.dumps(asdict(RESEARCH_KEYS)))) == RESEARCH_KEYS
    assert RESEARCH_KEYS.views == ("image", "base")
