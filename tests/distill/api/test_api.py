"""From Python: what import distill offers, by real caches, runs and models."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Literal, get_args, get_origin, get_type_hints

import click
import matplotlib
import numpy as np
import pytest
import torch
from conftest import ROOT, Counted
from helpers.exported import SMALL, invoke, val_photos
from PIL import Image

import distill
from cache.build.from_folder import FeatureOptions
from distill.api import exporting, features
from distill.api.exporting import Exporting
from distill.api.features import Features, Reading
from distill.api.kinds import check_kinds
from distill.deploy.export_options import ExportOptions
from distill.deploy.model import Prediction
from distill.settings import parsed_value

QUICK = {name: parsed_value(value) for name, value in (line.split("=") for line in SMALL)}


def test_every_name_is_there_and_none_needs_torch_before_it_is_used():
    names = distill.__all__
    code = "import sys, distill; heavy = {'torch', 'numpy', 'h5py', 'PIL'} & {*sys.modules}; print(heavy or dir(distill))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert {*names} <= {*eval(done.stdout)}
    assert {name for name in names if not hasattr(distill, name)} == set()
    with pytest.raises(AttributeError, match="no attribute 'train_studnet'"):
        _ = distill.train_studnet


def test_predicting_needs_no_torch(exported):
    code = (
        "import sys; sys.modules['torch'] = None; import distill, numpy;"  # as where it is not installed
        "m = distill.load_model(sys.argv[1]); print(m.predict(numpy.zeros((9, 8, 3), dtype='uint8')).answer)"
    )
    done = subprocess.run([sys.executable, "-c", code, exported], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() in {*distill.load_model(exported).labels}, done.stderr


def test_its_options_are_those_of_the_commands():
    given = {*get_type_hints(Features)} - {*get_type_hints(Reading)}
    assert given < {*FeatureOptions.__dataclass_fields__}
    assert {*FeatureOptions.__dataclass_fields__} - given == {
        *("model", "pretrained", "device", "weights_sha256"),  # by themselves, or nobody's to give
        *("sources", "cluster"),
    }
    of_export = {*ExportOptions.__dataclass_fields__} - {"formats", "precisions", "data_dir", "cache_dir"}
    assert {*get_type_hints(Exporting)} == of_export | {"cache", "teacher_model", "pretrained"}


@pytest.mark.parametrize(
    ("command", "options", "bounds"),
    [("cache_features", Features, features.BOUNDS), ("export", Exporting, exporting.BOUNDS)],
)
def test_its_choices_and_bounds_are_those_of_the_commands(command, options, bounds):
    types = {
        param.name: param.type
        for param in getattr(import_module(f"distill.commands.{command}"), command).params
    }
    for name, kind in get_type_hints(options).items():
        choices = [
            choice
            for one in (kind, *get_args(kind))
            if get_origin(one) is Literal
            for choice in get_args(one)
        ]
        assert choices == [*getattr(types.get(name), "choices", ())], name
    ranges = {
        name: kind for name, kind in types.items() if isinstance(kind, click.IntRange | click.FloatRange)
    }
    told = {name: (kind.min, kind.max) for name, kind in ranges.items() if name in get_type_hints(options)}
    assert told == bounds


def test_a_cache_a_student_a_model_from_python_leave_no_trace(tmp_path, photos, teacher_dir, capfd):
    matplotlib.use("svg")
    torch.manual_seed(7)
    before = torch.get_rng_state(), os.environ.copy()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    cache = distill.cache_features(
        photos,
        tmp_path / "cache",
        model=f"local-dir:{teacher_dir}",
        device="cpu",
        workers=0,
        templates="a {}",
    )
    assert cache.bank_names == ("labels", "descriptions", "templates")
    student = distill.train_student(
        cache, tmp_path / "run", recipe="smoke", settings={**QUICK, "train.epochs": 1}
    )
    judged, teacher = distill.evaluate(student), distill.evaluate(cache, split="id_test")

    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == os.environ
    assert handlers == [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert matplotlib.get_backend().lower() == "svg"
    assert capfd.readouterr() == ("", "")
    assert judged.accuracy == pytest.approx(student.accuracy)
    assert [*teacher.accuracy] == ["id_test"]
    assert ["ood_test" in repr(student), "id_test" in repr(judged), "train 24" in repr(cache)] == [True] * 3
    assert student.summary["command"][:4] == ["distill", "train", str(cache.path), "--out"]
    assert "train.epochs=1" in student.summary["command"]


def test_a_run_is_told_of_as_it_goes_and_goes_on(tmp_path, photos, cached):
    told = Counted()
    settings = {**QUICK, "train.epochs": 1, "optim.schedule": "constant", "optim.warmup": 0}
    student = distill.train_student(
        cached, tmp_path / "run", recipe="smoke", settings=settings, data=photos, progress=told
    )
    assert told.done
    again = distill.train_student(None, student.folder, settings=["train.epochs=2"], resume=True)
    assert again.summary["epochs"] == 2


def test_an_image_is_whatever_python_has_of_it(exported, trained):
    model, photo = distill.load_model(exported), val_photos(trained)[0]
    picture = Image.open(photo)
    pixels = np.array(picture.convert("RGB"))
    kinds = [photo, str(photo), picture, pixels, torch.from_numpy(pixels.transpose(2, 0, 1).copy())]
    said = [model.predict(one) for one in kinds]
    assert [one.labels for one in said] == [said[0].labels] * len(kinds)
    assert [one.image for one in said[:3]] == [str(photo), str(photo), "image 0"]
    several = [*said[:2], *(Prediction(image=f"image {i}", labels=said[0].labels) for i in (2, 3, 4))]
    assert [one.image for one in model.predict(kinds)] == [one.image for one in several]
    assert len(model.predict(np.stack([pixels, pixels]))) == 2
    rows = model.embed(kinds)
    assert (rows.shape, rows.dtype) == ((5, model.embed_dim), np.float32)
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(rows[0], model.embed(photo), atol=1e-5)
    assert model.embed([]).shape == (0, model.embed_dim)
    assert repr(said[0].labels[0].label) in repr(said[0])


def test_a_picture_is_turned_as_its_file_would_be(exported, trained, tmp_path):
    model, side = distill.load_model(exported), tmp_path / "side.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.open(val_photos(trained)[0]).save(side, exif=exif)
    assert model.predict(side).labels == model.predict(Image.open(side)).labels


def test_it_says_what_the_command_says(exported, trained):
    photos = val_photos(trained)
    told = [one.answer for one in distill.load_model(exported).predict(photos, names=["plum", "lemon"])]
    command = invoke("predict", exported, *photos, "--names", "plum,lemon", "--format", "csv")
    assert told == [line.split(",")[1] for line in command.stdout.splitlines()[1:]]


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ("nowhere.jpg", "nowhere.jpg does not exist"),
        (ROOT, "is a folder"),
        (np.zeros((4, 4, 3)), "float64"),
        (7, "a int is no image"),
        ([object()], "no image"),
        (__file__, "cannot be read"),
    ],
)
def test_what_is_no_image_is_told_in_one_line(exported, images, words):
    model = distill.load_model(exported)
    for ask in (model.predict, model.embed):
        with pytest.raises(distill.UserError, match=words) as told:
            ask(images)
        assert "\n" not in str(told.value)


def test_of_many_images_those_that_cannot_be_read_can_be_kept_with_the_reason(exported, trained):
    photo = val_photos(trained)[0]
    said = distill.load_model(exported).predict([photo, __file__], errors="keep")
    assert (said[0].error, bool(said[1].error), said[1].labels) == ("", True, ())


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: distill.load_model(None), r"^folder is None. Fix: give str or PathLike\[str\]\.$"),
        (lambda: distill.cache_features(ROOT, 7), "^out is 7"),
        (lambda: distill.export(ROOT, "out", int8="stat"), "^int8 is 'stat'.*'static'"),
        (lambda: distill.train_student(ROOT, "out", progress="yes"), "^progress is 'yes'. Fix: give bool or Progress"),
        (lambda: distill.adapt_photos(ROOT, "out", names=None), "^names is None"),
        (lambda: distill.adapt_photos(ROOT, "out", names=["plum", None]), "^one of names is None. Fix: give str"),
        (lambda: distill.load_model("nowhere", threads=-1), "^threads is -1.*from 0 to"),
        (lambda: distill.load_model("nowhere"), "nowhere does not exist"),
        (lambda: distill.evaluate("nowhere"), "nowhere does not exist"),
        (lambda: distill.export("nowhere", "out"), "nowhere does not exist"),
        (lambda: distill.train_student("nowhere", "out"), "nowhere does not exist"),
        (lambda: distill.train_student(None, "out"), "no cache is given"),
        (lambda: distill.train_student(ROOT, "out", settings="train.epochs=1"), r"settings is 'train.*give \['train"),
        (lambda: distill.train_student(ROOT, "out", settings={"train.epochs": object()}), "train.epochs is a object"),
        (lambda: distill.cache_features("nowhere", "out", model="local-dir:x"), "nowhere"),
        (lambda: distill.cache_features(ROOT, "out", split="half"), "^split 'half' is not of the form"),
        (lambda: distill.cache_features(ROOT, "out", model="ViT-B-32"), "Fix: give pretrained with"),
        (lambda: distill.cache_features(ROOT, "out", precision="float8"), "precision is 'float8'.*choose from auto"),
        (lambda: distill.cache_features(ROOT, "out", views=0), "views is 0.*from 1 to 1,000"),
        (lambda: distill.cache_features(ROOT, "out", store="raw"), "^store is of views"),
        (lambda: distill.cache_features(ROOT, "out", support_views=1), "^support_views=1 is the plain row"),
        (lambda: distill.cache_features(ROOT, "out", class_depth=0), "class_depth is 0.*or -1"),
        (lambda: distill.cache_features(ROOT, "out", columns={"labl": "x"}), "columns names 'labl'.*'label'"),
        (lambda: distill.adapt_photos(ROOT, "out", names=["a", "b"], budget=0), "budget: 0 is no time"),
        (lambda: distill.export(ROOT, "out", formats="onx"), "^formats names 'onx'"),
        (lambda: distill.export(ROOT, "out", pretrained="x"), "^teacher_model and pretrained are of vocabulary"),
        (lambda: distill.evaluate(ROOT, teacher="second"), "teacher is given, and .* is a run"),
        (lambda: distill.adapt_photos(ROOT, "out"), "^there are no names: a list, or a file"),
        (lambda: distill.cache_features(ROOT, "out", names="n.txt"), "^n.txt cannot be read"),
        (lambda: distill.adapt_photos(ROOT, "out", names=["a", "b"], budget="soon"), "'soon' is no time"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_with_what_to_do(here, call, words):
    with pytest.raises(distill.UserError, match=words) as told:
        call()
    assert "Fix: " in str(told.value)
    assert [*here.iterdir()] == []


def test_a_setting_that_is_wrong_is_told_by_its_name(here, cached):
    for settings, words in (
        ({"optim.lr": -1}, "^optim.lr is -1.0"),
        (["lr=1"], "^lr is not a setting.*'optim.lr'"),
    ):
        with pytest.raises(distill.UserError, match=words):
            distill.train_student(cached, "out", settings=settings)


def test_a_module_of_the_users_that_is_called_cache_is_named(tmp_path):
    (tmp_path / "cache.py").write_text("")
    code = "import distill; distill.cache_features"
    env = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert f"{tmp_path / 'cache.py'} is imported as 'cache', which is a package of distill" in done.stderr


SCRIPT = """
import sys, multiprocessing
print("the script runs")
if multiprocessing.get_start_method(allow_none=True) is None:
    multiprocessing.set_start_method("spawn")
import distill
cache = distill.cache_features(sys.argv[1], "cache", model=f"local-dir:{sys.argv[2]}", device="cpu", workers=1)
print(cache.rows)
"""


@pytest.mark.long
def test_a_script_without_a_guard_is_not_run_again_by_its_workers(here, photos, teacher_dir):
    Path("script.py").write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, "script.py", photos, teacher_dir],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "the script runs\n39\n", done.stderr


def test_numbers_of_numpy_are_numbers_and_truth_values_are_none():
    kinds = {"seed": int, "budget": float | None}
    check_kinds({"seed": np.int64(3), "budget": np.float32(1.5)}, kinds)
    for given in ({"seed": True}, {"seed": 2.0}, {"budget": np.bool_(True)}):
        with pytest.raises(distill.UserError, match=f"^{next(iter(given))} is "):
            check_kinds(given, kinds)
