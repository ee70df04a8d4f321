"""A student as other libraries load it: by its folder, with its own answers, as the card's examples say."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers.clean_process import run_clean
from helpers.exported import SMALL, invoke, student_says, val_photos
from safetensors import safe_open

from cache import EmbeddingCache
from cache.runtime.errors import UserError
from cache.sources.decoding import load_rgb
from distill.config import RunConfig
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import ModelInfo
from distill.deploy.libraries import Libraries
from distill.deploy.model import Model
from distill.deploy.onnx_files import UnitEmbedding
from distill.deploy.open_clip_folder import load_clip
from distill.deploy.timm_folder import load_timm
from distill.settings import with_settings
from distill.student.build import build_student
from distill.train.start import train as run

EVERY = ("onnx", "safetensors", "open_clip", "timm")


def examples(folder: Path) -> dict[str, str]:
    """The code that a card shows, by the library that it is of."""
    found = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    libraries = ("open_clip", "timm", "torchvision", "openvino", "ai_edge_litert")
    return {
        next(name for name in libraries if f"import {name}" in code or f"from {name}" in code): code
        for code in found
    }


@pytest.fixture(scope="module")
def beside_a_photo(exported, trained, tmp_path_factory):
    """What was exported, with a photo in it, and the label that ``predict`` gives that."""
    folder = shutil.copytree(exported, tmp_path_factory.mktemp("elsewhere") / "model")
    photo = val_photos(trained)[0]
    shutil.copy(photo, folder / "photo.jpg")
    return folder, predicted(folder, photo)


def predicted(folder, photo):
    asked = invoke("predict", folder, photo, "--top", 1, "--format", "jsonl")
    return json.loads(asked.stdout)["labels"][0]["label"]


def test_every_example_of_the_card_prints_what_the_model_says(beside_a_photo, monkeypatch):
    folder, label = beside_a_photo
    monkeypatch.chdir(folder)
    codes = examples(folder)
    assert {*codes} == {"open_clip", "timm", "openvino"}
    for name, code in codes.items():
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(compile(code, name, "exec"), {})
        if name == "open_clip":  # which prepares photos in its own way
            assert printed.getvalue().strip() in ("apple", "banana", "cherry")
        else:
            assert (name, printed.getvalue()) == (name, f"{label}\n")


@pytest.mark.long
def test_every_example_runs_where_nothing_of_ours_is(beside_a_photo):
    folder, label = beside_a_photo
    for name, code in examples(folder).items():
        printed = run_clean(code, folder)
        asked = ("apple", "banana", "cherry") if name == "open_clip" else (label,)
        assert printed.strip() in asked, name


@pytest.mark.long
def test_a_student_of_torchvision_whose_photos_are_squashed_whole_is_loaded_by_all_of_them(trained, tmp_path):
    settings = [*SMALL, "student.arch=torchvision:resnet18", "student.eval_crop=1", "train.epochs=1"]
    config = with_settings(RunConfig(), settings)
    run(config, cache_dir=trained / "cache", data_dir=trained / "photos", out=tmp_path / "run")
    info = export_run(tmp_path / "run", tmp_path / "model", ExportOptions(formats=EVERY, nearest_images=0))
    for name in ("open_clip", "timm"):
        assert info.measured[name]["as_loaded"].keys() == info.measured["float32"]["splits"].keys()
        for split, numbers in info.measured[name]["as_loaded"].items():
            assert numbers["cosine_least"] > 0.9999
            assert numbers["all_accuracy"] == info.measured["float32"]["splits"][split]["all_accuracy"]
    photo = val_photos(trained)[0]
    shutil.copy(photo, tmp_path / "model" / "photo.jpg")
    codes = examples(tmp_path / "model")
    assert {*codes} == {"open_clip", "timm", "torchvision", "openvino"}
    label = predicted(tmp_path / "model", photo)
    for code in (codes["timm"], codes["torchvision"], codes["openvino"]):
        assert run_clean(code, tmp_path / "model") == f"{label}\n"


def test_open_clip_and_timm_say_what_the_student_says_with_their_own_preprocessing_measured(
    trained, exported
):
    info, photos = ModelInfo.load(exported), val_photos(trained)
    expected = student_says(trained, photos)
    network, prepare = load_timm(exported)
    rows = UnitEmbedding(network)(torch.from_numpy(np.stack([prepare(load_rgb(photo)) for photo in photos])))
    np.testing.assert_allclose(rows.detach().numpy(), expected, atol=1e-4)
    assert min(n["cosine_least"] for n in info.measured["timm"]["as_loaded"].values()) > 0.9999
    clip = load_clip(exported)
    own = clip.embed(np.stack([clip.prepare(load_rgb(photo)) for photo in photos]))
    measured = info.measured["open_clip"]
    # Of 37 px the student keeps the middle 32, and open_clip cuts nothing off.
    assert (own * expected).sum(axis=1).mean() == pytest.approx(
        measured["as_loaded"]["ood_test"]["cosine_mean"], abs=1e-3
    )
    assert measured["as_loaded"]["ood_test"]["images"] == len(photos)
    assert measured["texts_cosine"] > 0.999
    bank = Model.open(exported).class_set()
    np.testing.assert_allclose(clip.texts(bank.texts), bank.embeddings, atol=1e-3)
    assert clip.teacher.images.network.logit_scale.exp().item() == pytest.approx(1 / info.temperature)


@pytest.mark.long
def test_a_file_for_litert_says_what_the_student_says_one_photo_at_a_time(trained, tmp_path):
    pytest.importorskip("litert_torch", reason="the extra tflite is not installed")
    options = ExportOptions(formats=("onnx", "tflite"), nearest_images=0)
    info = export_run(trained / "run", tmp_path / "model", options)
    assert info.measured["tflite"]["splits"]["ood_test"]["largest_difference"] < 1e-4
    photo = val_photos(trained)[0]
    shutil.copy(photo, tmp_path / "model" / "photo.jpg")
    label = predicted(tmp_path / "model", photo)
    assert run_clean(examples(tmp_path / "model")["ai_edge_litert"], tmp_path / "model") == f"{label}\n"


def test_a_converter_that_is_not_installed_is_named_before_any_work(trained, exported):
    if find_spec("litert_torch") is not None:
        pytest.skip("litert-torch is installed")
    student = UnitEmbedding(build_student("timm:test_resnet", embed_dim=16, image_size=32)).eval()
    with pytest.raises(UserError, match="litert_torch is not installed"):
        Libraries.of(student, ModelInfo.load(exported), ("tflite",), EmbeddingCache.open(trained / "cache"))


def test_a_text_bank_is_there_in_safetensors_as_well(exported):
    bank = Model.open(exported).class_set()
    with safe_open(exported / "texts" / "labels.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("embeddings"), bank.embeddings)
        assert tuple(json.loads(file.metadata()["labels"])) == bank.labels


@pytest.mark.parametrize(
    ("change", "problem", "advice"),
    [
        ({"head": "stages"}, "reads every stage of its trunk", "cost 5.1 points of ID and 9.7 of OOD"),
        (
            {"arch": "torchvision:squeezenet1_0"},
            "is torchvision's, and no network of timm's",
            "--arch timm:NAME",
        ),
        ({"arch": "net.py:Net"}, "is your own code", "--formats onnx and safetensors take any"),
        (
            {"arch": "timm:resnet18"},
            "is another network in timm than this student",
            "leave open_clip and timm",
        ),
        ({"text_mean": (0.1,) * 16}, "of the teacher's centred space", "loss.center=false"),
    ],
)
def test_what_they_cannot_hold_is_refused_in_one_line_before_any_work(
    trained, exported, change, problem, advice
):
    info = replace(ModelInfo.load(exported), **change)
    student = UnitEmbedding(build_student("timm:test_resnet", embed_dim=16, image_size=32)).eval()
    cache = EmbeddingCache.open(trained / "cache")
    with pytest.raises(UserError, match=problem) as refused:
        Libraries.of(student, info, EVERY, cache)
    assert advice in str(refused.value)


def test_a_transformer_of_another_size_is_for_timm_alone(trained, exported):
    info = replace(ModelInfo.load(exported), arch="timm:test_vit", kwargs=())
    student = UnitEmbedding(build_student("timm:test_vit", embed_dim=16, image_size=32)).eval()
    cache = EmbeddingCache.open(trained / "cache")
    assert Libraries.of(student, info, ("timm",), cache).student is not None
    with pytest.raises(
        UserError, match="open_clip builds test_vit for 160 px alone, and this student takes 32"
    ):
        Libraries.of(student, info, ("open_clip",), cache)


def test_one_of_several_teachers_heads_is_what_timm_gets(trained, exported, tmp_path):
    whole = build_student("timm:test_resnet", embed_dim=24, image_size=32)
    info = replace(ModelInfo.load(exported), outputs=24)
    shipped = UnitEmbedding(whole, 8, 24).eval()
    cache = EmbeddingCache.open(trained / "cache")
    libraries = Libraries.of(shipped, info, ("timm",), cache)
    (file,) = libraries.written(tmp_path, info, cache, None)
    images = np.random.default_rng(0).random((2, 3, 32, 32), dtype=np.float32)
    expected = shipped(torch.from_numpy(images)).detach().numpy()
    np.testing.assert_allclose(file.embed(images), expected, atol=1e-5)
    with pytest.raises(UserError, match="of a student of several teachers they differ"):
        Libraries.of(shipped, info, ("timm", "safetensors"), cache)
