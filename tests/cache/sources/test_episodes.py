"""Episode files: what is read, how lazily, and what is said of files that are not as they should be."""

from __future__ import annotations

import shutil

import h5py
import numpy as np
import pytest
from helpers.episode_files import write_episode, written_episodes

from cache.runtime.errors import UserError
from cache.runtime.hdf5_safety import open_hdf5
from cache.sources.episode_texts import episode_banks
from cache.sources.episodes import EpisodeFolder, object_name
from cache.sources.samples import labels_of
from distill.demo.episodes import ID_OBJECTS, OOD_OBJECTS, draw_episodes


@pytest.fixture
def folder(tmp_path):
    return written_episodes(tmp_path / "episodes")


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
