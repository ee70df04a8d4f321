from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.sources.decoding import UnreadableImage, load_rgb


def test_keys_are_sorted_and_classes_are_the_sorted_folders(photos):
    split = open_data([photos]).split("train")
    keys = [image.key for image in split.all()]
    assert keys == sorted(keys)
    assert split.classes == ("apple", "banana", "cherry")
    assert all(image.labels == (image.key.split("/")[0],) for image in split.all())
    assert not split.multi_label


def test_endings_of_any_case_are_images_and_other_files_are_not(photos, write_jpeg):
    for name in ("A.JPG", "b.Jpeg", "c.PNG", "d.webp", "e.BMP"):
        write_jpeg(photos / "train" / "apple" / name)
    (photos / "train" / "apple" / "notes.txt").write_text("hello")
    (photos / "train" / "apple" / ".hidden.jpg").write_text("hello")
    keys = {image.key for image in open_data([photos]).split("train").all()}
    assert {f"apple/{name}" for name in ("A.JPG", "b.Jpeg", "c.PNG", "d.webp", "e.BMP")} <= keys
    assert not any("notes" in key or "hidden" in key for key in keys)


@pytest.mark.parametrize("split", ["val", "train"])
def test_a_folder_that_is_missing_is_an_error_where_its_split_is_asked_for(photos, split):
    (photos / split).rename(photos / "other")
    with pytest.raises(UserError, match=f"no folder '{split}'.*Fix: "):
        open_data([photos]).split(split)


def test_a_missing_id_test_is_allowed_and_asking_for_it_says_so(photos):
    (photos / "val_on_train").rename(photos / "other")
    folder = open_data([photos])
    assert set(folder.splits) == {"train", "ood_test"}
    with pytest.raises(UserError, match="val_on_train"):
        folder.split("id_test")


RAMP = np.linspace(0, 255, 64).reshape(8, 8)


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "LA", "1", "RGB"])
def test_every_mode_becomes_what_torchvision_would_give(tmp_path, mode):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    Image.fromarray(RAMP.astype(np.uint8)).convert("RGB").convert(mode).save(path)
    with open(path, "rb") as file:
        expected = np.asarray(Image.open(file).convert("RGB"))
    image = load_rgb(path)
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), expected)


def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path):
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(tmp_path / "x.png")
    np.testing.assert_allclose(np.asarray(load_rgb(tmp_path / "x.png"))[..., 0], RAMP, atol=1)


def test_truncated_empty_and_text_files_are_unreadable(tmp_path, write_jpeg):
    write_jpeg(tmp_path / "whole.jpg")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:400])
    (tmp_path / "text.jpg").write_text("not an image")
    (tmp_path / "empty.jpg").write_bytes(b"")
    for name in ("cut.jpg", "text.jpg", "empty.jpg", "absent.jpg"):
        with pytest.raises(UnreadableImage):
            load_rgb(tmp_path / name)
