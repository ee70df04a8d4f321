"""Preprocessing inside the graph, on raw photos of any size, in more than one runtime; files that answer badly."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import REAL_PHOTOS
from helpers.exported import invoke, val_photos
from PIL import Image

from cache.runtime.errors import UserError
from cache.sources.decoding import load_rgb
from distill.deploy.check import unlike
from distill.deploy.check_photos import check_photos, photos_compared, raw_photos
from distill.deploy.graph_preprocessing import PreparedPhoto
from distill.deploy.info import GRAPH, ModelInfo, Preprocessing
from distill.deploy.model import Model

SIZES = [(40, 40), (37, 37), (130, 91), (31, 200), (1, 1), (3, 501), (640, 479)]


def drawn(width: int, height: int) -> Image.Image:
    rng = np.random.default_rng(width * height)
    coarse = rng.integers(0, 256, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_every_pixel_of_a_squashed_photo_is_pillows(width, height):
    steps = Preprocessing(where=GRAPH, resize=37, crop=32, mean=(0.0, 0.0, 0.0), std=(1 / 255,) * 3)
    photo = drawn(width, height)
    prepared = PreparedPhoto(steps)(torch.from_numpy(np.asarray(photo).copy())[None])[0].permute(1, 2, 0)
    squashed = np.asarray(photo.resize((37, 37), Image.Resampling.BILINEAR))[2:34, 2:34]
    away = np.abs(prepared.numpy() - squashed)
    # A mean halfway between two whole numbers may be rounded the other way; and a thin photo is squashed in
    # the other order by some releases of Pillow, with whole numbers in between.
    assert away.max() <= 1.01
    assert away.mean() < (0.01 if min(width, height) >= 37 or width == height else 0.3)


@pytest.mark.parametrize("runtime", ["onnxruntime", "OpenVINO"])
def test_a_graph_prepares_raw_photos_of_any_size_as_pillow_does_in_every_runtime(exported, runtime):
    if runtime == "OpenVINO":
        pytest.importorskip("openvino")
    model = Model.open(exported)
    photos = [drawn(width, height) for width, height in SIZES]
    if REAL_PHOTOS.is_dir():
        files = sorted((REAL_PHOTOS / "grocery" / "val").glob("*/*.jpg"))[::40]
        photos += [load_rgb(path).resize((1001, 333)) for path in files] + [load_rgb(path) for path in files]
    compared = photos_compared(exported / "model.onnx", model.embed, photos, model.info.preprocessing)
    assert compared["images"] == len(photos)
    assert compared["least_cosine"][runtime] > 0.999


def test_an_export_is_checked_on_raw_photos_of_odd_sizes(exported):
    compared = ModelInfo.load(exported).measured["float32"]["photos"]
    assert compared["images"] == 14  # eight of nine id_test images, and all six of ood_test
    assert compared["sizes"] == 5
    assert compared["least_cosine"]["onnxruntime"] > 0.999
    card = (exported / "README.md").read_text()
    assert f"on 14 raw photos of {compared['sizes']} sizes" in card
    with pytest.raises(UserError, match=r"model\.onnx prepares photos in OpenVINO otherwise"):
        check_photos("model.onnx", {"least_cosine": {"onnxruntime": 1.0, "OpenVINO": float("nan")}})


def test_photos_are_taken_as_they_are_and_with_odd_sides(trained, exported):
    from distill.deploy.check import judged_splits
    from distill.judge.open_run import open_trained

    opened = open_trained(trained / "run", device="cpu")
    judged = judged_splits(opened, lambda images: np.ones((len(images), 4), dtype=np.float32), most=9)
    sizes = [photo.size for photo in raw_photos(judged)]
    assert sizes[0] == (40, 40)
    assert all(side % 2 for size in sizes if size != (40, 40) for side in size)
    assert len(set(sizes)) == 5


def test_a_file_that_answers_otherwise_than_its_student_says_so_wherever_it_is_met(trained, plain, tmp_path):
    splits = {"id_test": {"cosine_mean": 0.99}, "ood_test": {"cosine_mean": 0.9211}}
    fine = {"id_test": {"cosine_mean": 0.98}}
    assert unlike({"int8": {"splits": splits}, "float32": {"splits": fine}}) == {"int8": 0.9211}
    info = ModelInfo.load(plain)
    assert info.unlike == {}
    assert info.warning("float32") == ""
    import shutil

    from distill.deploy.card import write_card

    folder = tmp_path / "model"
    shutil.copytree(plain, folder)
    bad = replace(info, unlike={"float32": 0.9211})
    bad.save(folder)
    write_card(folder, bad)
    assert (
        "**Warning: the float32 file does not answer as the student does"
        in (folder / "README.md").read_text()
    )
    ended = invoke("predict", folder, val_photos(trained)[0], "--format", "jsonl")
    assert ended.exit_code == 0
    assert "Warning: the float32 file does not answer as the student does" in ended.stderr
    assert "0.921" in ended.stderr
    assert "Warning" not in ended.stdout
    assert "Warning" not in invoke("predict", plain, val_photos(trained)[0]).output
