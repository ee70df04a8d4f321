"""From a trained run to a folder that stands alone: exported, checked, used without torch, served."""

from __future__ import annotations

import asyncio
import concurrent.futures
import csv
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT, make_photos
from PIL import Image
from test_untrusted import png_of

from cache.errors import UserError
from cache.features import FeatureOptions, cache_features
from cache.images import load_rgb
from cache.seal import sealed
from cli import main
from distill.augment import eval_transform
from distill.config import RunConfig
from distill.deploy.batching import Batcher
from distill.deploy.class_sets import ClassSet, pick
from distill.deploy.export import ExportOptions, export_run
from distill.deploy.info import ModelInfo
from distill.deploy.model import Model
from distill.deploy.predict import image_files, predict
from distill.deploy.serve import Rates, Refused
from distill.evaluate_run import open_trained
from distill.settings import with_settings
from distill.train import run

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=32", "train.epochs=6", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0", "loss.mse=1", "train.precision=float32",
]  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, teacher_dir: Path) -> Path:
    """A folder with photos, a cache that keeps its text tower, and a run."""
    root = tmp_path_factory.mktemp("trained")
    photos = make_photos(root / "photos")
    options = FeatureOptions(model=f"local-dir:{teacher_dir}", device="cpu", workers=0, keep_text_tower=True)
    cache_features(photos, root / "cache", options)
    run(with_settings(RunConfig(), SMALL), cache_dir=root / "cache", data_dir=photos, out=root / "run")
    return root


@pytest.fixture(scope="module")
def exported(trained: Path) -> Path:
    """All that can be exported, with the preprocessing in the graph."""
    export_run(
        trained / "run",
        trained / "graph",
        ExportOptions(
            formats=("onnx", "torch", "safetensors"),
            precisions=("float32", "float16", "int8"),
            preprocessing="graph",
            license="mit",
        ),
    )
    return trained / "graph"


@pytest.fixture(scope="module")
def plain(trained: Path) -> Path:
    """What is exported unless more is asked for."""
    export_run(trained / "run", trained / "plain")
    return trained / "plain"


def student_says(trained: Path, photos: list[Path]) -> np.ndarray:
    """Unit embeddings by the torch student, its own way."""
    opened = open_trained(trained / "run", device="cpu")
    size = round(32 * 256 / 224)
    images = [
        torch.from_numpy(np.array(load_rgb(p).resize((size, size), Image.Resampling.BILINEAR)))
        for p in photos
    ]
    with torch.no_grad():
        rows = opened.student(eval_transform(torch.stack(images).permute(0, 3, 1, 2), 32))
    found: np.ndarray = torch.nn.functional.normalize(rows, dim=1).numpy()
    return found


def val_photos(trained: Path) -> list[Path]:
    return image_files([trained / "photos" / "val"])


@pytest.mark.parametrize("folder", ["graph", "plain"])
def test_an_exported_graph_says_what_the_student_says(trained, exported, plain, folder):
    photos = val_photos(trained)
    expected = student_says(trained, photos)
    for precision, most in (("float32", 1e-4), ("float16", 5e-3), ("int8", 0.2)):
        if folder == "plain" and precision != "float32":
            continue
        model = Model.open(trained / folder, precision=precision)
        found = np.concatenate([model.embed(model.prepare(load_rgb(photo))[None]) for photo in photos])
        np.testing.assert_allclose(found, expected, atol=most)
        np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-3)
        together = model.embed(np.stack([model.prepare(load_rgb(photo)) for photo in photos]))
        np.testing.assert_allclose(together, found, atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(40, 40), (90, 130), (31, 200)])
def test_the_graph_prepares_photos_of_any_size_as_pillow_does(exported, plain, height, width):
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 255, (height // 8 + 2, width // 8 + 2, 3), dtype=np.uint8)
    photo = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    inside, outside = Model.open(exported), Model.open(plain)
    by_graph = inside.embed(np.asarray(photo)[None])
    np.testing.assert_allclose(by_graph, outside.embed(outside.prepare(photo)[None]), atol=2e-3)


def test_the_other_formats_say_what_the_student_says(trained, exported):
    from safetensors import safe_open
    from safetensors.torch import load_file

    photos = val_photos(trained)
    expected = student_says(trained, photos)
    inputs = torch.from_numpy(
        np.stack([Model.open(trained / "plain").prepare(load_rgb(photo)) for photo in photos])
    )
    program = torch.export.load(exported / "model.pt2").module()
    np.testing.assert_allclose(program(inputs).detach().numpy(), expected, atol=1e-4)
    student = open_trained(trained / "run", device="cpu").student
    for name, value in load_file(exported / "model.safetensors").items():
        assert torch.equal(value, student.state_dict()[name])
    with safe_open(exported / "model.safetensors", "pt") as file:
        assert file.metadata()["arch"] == "timm:test_resnet"


def test_what_was_measured_is_in_the_card_and_is_what_it_is(trained, exported):
    info = ModelInfo.load(exported)
    assert set(info.measured) == {"float32", "float16", "int8", "torch", "safetensors"}
    judged = json.loads(
        CliRunner().invoke(main, ["evaluate", str(trained / "run"), "--device", "cpu", "--json"]).stdout
    )
    card = (exported / "README.md").read_text()
    for split in ("id_test", "ood_test"):
        numbers = info.measured["float32"]["splits"][split]
        assert numbers["accuracy"] == pytest.approx(judged[split]["accuracy"])
        assert numbers["largest_difference"] < 1e-4
        assert f"| {split} | {numbers['images']} |" in card
        # Again, from the files alone.
        model = Model.open(exported)
        classes = model.class_set(labels=info.id_classes if split == "id_test" else info.ood_classes)
        folder = trained / "photos" / ("val_on_train" if split == "id_test" else "val")
        found = list(predict(model, image_files([folder]), classes))
        right = [Path(one.image).parent.name == one.labels[0].class_name for one in found]
        assert 100 * np.mean(right) == pytest.approx(numbers["accuracy"])
    import yaml

    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit"
    assert front["pipeline_tag"] == "zero-shot-image-classification"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(
        info.measured["float32"]["splits"]["id_test"]["accuracy"], abs=0.01
    )


def test_the_onnx_file_describes_its_preprocessing(exported, plain):
    import onnx

    for folder, shape, kind in (
        (exported, ["batch", "height", "width", 3], onnx.TensorProto.UINT8),
        (plain, ["batch", 3, 32, 32], onnx.TensorProto.FLOAT),
    ):
        graph = onnx.load(str(folder / "model.onnx"))
        described = {one.key: one.value for one in graph.metadata_props}
        steps = json.loads(described["preprocessing"])
        assert (steps["resize"], steps["crop"]) == (37, 32)
        assert steps["mean"] == pytest.approx([0.485, 0.456, 0.406])
        given = graph.graph.input[0]
        assert given.name == "image"
        assert given.type.tensor_type.elem_type == kind
        assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == shape


def test_the_threshold_keeps_95_of_100_id_images(trained, exported):
    info = ModelInfo.load(exported)
    for precision in ("float32", "int8"):
        model = Model.open(exported, precision=precision)
        photos = image_files([trained / "photos" / "val_on_train"])
        found = list(predict(model, photos, model.class_set(labels=info.id_classes), reject=True))
        assert sum(one.none_of_these for one in found) == 1  # of nine, the 5% below the quantile
        assert info.measured[precision]["splits"]["id_test"]["rejected"] == pytest.approx(100 / 9)
        assert next(one for one in found if one.none_of_these).answer == "none of these"


def test_the_folder_is_used_by_its_own_script_where_nothing_else_is_installed(trained, plain, tmp_path):
    moved, photo = tmp_path / "elsewhere", val_photos(trained)[0]
    shutil.copytree(plain, moved)
    allowed = {"onnxruntime", "numpy", "PIL"}
    # What is not the standard library's and not of these three cannot be found.
    guard = f"""
import sys, runpy, importlib.abc
class Nothing(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {{"torch", "timm", "torchvision", "cache", "distill", "cli", "h5py", "onnx"}}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Nothing())
sys.argv = ["classify.py", {str(photo)!r}]
runpy.run_path({str(moved / "classify.py")!r}, run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", guard], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    source = (moved / "classify.py").read_text()
    assert set(re.findall(r"^(?:import|from) (\w+)", source, re.M)) - allowed <= {
        "json",
        "sys",
        "pathlib",
    }
    model = Model.open(plain)
    (expected,) = predict(model, [photo], model.class_set())
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    assert [label for _, label, _ in lines] == [label.label for label in expected.labels]
    assert [float(score) for *_, score in lines] == pytest.approx(
        [label.score for label in expected.labels], abs=1e-4
    )


def test_predicting_imports_neither_torch_nor_h5py(trained, plain):
    code = (
        "import sys; from cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print([m for m in ('torch', 'h5py', 'timm', 'open_clip', 'onnx') if m in sys.modules])"
    )
    words = ["predict", str(plain), str(trained / "photos" / "val"), "--format", "jsonl"]
    ended = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


def invoke(*words: object) -> Any:
    return CliRunner().invoke(main, list(map(str, words)))


def test_predictions_come_as_a_table_as_json_lines_and_as_csv(trained, plain, tmp_path):
    photos = trained / "photos" / "val"
    assert "lemon" in invoke("predict", plain, photos).stdout
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    found = invoke("predict", plain, photos, broken, "--labels", "lemon,plum", "--format", "jsonl")
    lines = [json.loads(line) for line in found.stdout.splitlines()]
    assert found.exit_code == 0
    assert len(lines) == 7
    assert "error" in lines[-1]
    assert "skipped" in found.stderr
    for line in lines[:-1]:
        assert {label["label"] for label in line["labels"]} == {"lemon", "plum"}
        assert sum(label["score"] for label in line["labels"]) == pytest.approx(1, abs=1e-5)
    out = tmp_path / "found.csv"
    assert invoke("predict", plain, photos, "--top", "2", "--out", out).exit_code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 6
    assert list(rows[0]) == ["image", "answer", "label_1", "score_1", "label_2", "score_2", "error"]


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (["predict", "MODEL", "PHOTO", "--labels", "lemonn"], 1, "did you mean 'lemon'"),
        (["predict", "MODEL", "PHOTO", "--labels", ""], 2, "--labels names nothing"),
        (["predict", "MODEL", "PHOTO", "--labels", "lemon,lemon"], 1, "is there twice"),
        (["predict", "MODEL", "PHOTO", "--bank", "lables"], 1, "did you mean 'labels'"),
        (["predict", "MODEL", "PHOTO", "--precision", "int8"], 1, "holds no ONNX model of precision int8"),
        (["predict", "MODEL", "nowhere.jpg"], 2, "nowhere.jpg"),
        (["predict", "MODEL", "EMPTY"], 1, "has no images below it"),
        (["predict", "EMPTY", "PHOTO"], 1, "is not an exported model"),
        (["predict", "MODEL", "TEXT"], 1, "cannot identify image file"),
        (["predict", "MODEL", "PHOTO", "--out", "x.csv", "--format", "table"], 2, "jsonl or csv"),
        (["export", "RUN", "--out", "MODEL"], 1, "exists and is not empty"),
        (["export", "RUN", "--out", "x", "--precisions", "int9"], 2, "did you mean 'int8'"),
        (["export", "RUN", "--out", "x", "--formats", ""], 2, "--formats names ''"),
        (["export", "EMPTY", "--out", "x"], 1, "there is no checkpoint"),
        (["export", "RUN", "--out", "x", "--teacher", "other"], 1, "did not learn from a teacher 'other'"),
        (["texts", "MODEL", "--bank", "x"], 2, "--bank is of --add"),
        (["texts", "MODEL", "--add", "kiwi", "--bank", "labels"], 1, "was exported with the model"),
        (["texts", "MODEL", "--add", "kiwi", "--bank", "../x"], 2, "cannot name a file"),
        (["texts", "MODEL", "--add", "kiwi", "--template", "a photo"], 2, "has not one '{}'"),
        (["serve", "EMPTY"], 1, "is not an exported model"),
        (["bench-model", "EMPTY"], 1, "is not an exported model"),
        (["bench-model", "MODEL", "--pretrained", "openai"], 2, "--pretrained is of --teacher-model"),
    ],
)
def test_wrong_input_is_one_line_and_the_right_status(
    trained, plain, tmp_path, monkeypatch, words, status, said
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("hello")
    put = {
        "MODEL": plain, "RUN": trained / "run", "PHOTO": val_photos(trained)[0], "EMPTY": tmp_path / "empty",
        "TEXT": tmp_path / "text.jpg",
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ended = invoke(*(put.get(word, word) for word in words))
    assert ended.exit_code == status, ended.output
    assert said in ended.output
    assert "Traceback" not in ended.output
    assert not list(tmp_path.glob(".*.export"))


def test_a_damaged_folder_is_refused_by_name(plain, tmp_path):
    for file, said in (
        ("model.onnx", r"model\.onnx is damaged"),
        ("texts/labels.npz", r"labels\.npz is damaged"),
        ("model.json", r"model\.json is damaged"),
    ):
        copy = tmp_path / file.replace("/", "-")
        shutil.copytree(plain, copy)
        raw = bytearray((copy / file).read_bytes())
        raw[len(raw) // 2] ^= 1
        (copy / file).write_bytes(raw)
        with pytest.raises(UserError, match=said):
            Model.open(copy)
    (copy / "model.json").unlink()
    shutil.copy(plain / "model.json", copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx is missing"):
        Model.open(copy)


def test_an_export_that_fails_leaves_nothing(trained, tmp_path, monkeypatch):
    import distill.deploy.check

    monkeypatch.setattr(distill.deploy.check, "FLOAT32_DIFFERENCE", -1.0)
    with pytest.raises(UserError, match=r"model\.onnx differs from the student"):
        export_run(trained / "run", tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_new_texts_are_those_of_the_teacher_and_can_be_chosen(trained, plain, teacher_dir, tmp_path):
    from cache.teacher import load_teacher

    model = tmp_path / "model"
    shutil.copytree(plain, model)
    assert "added 'kiwi fruit'" in invoke("texts", model, "--add", "kiwi fruit").stdout
    by_teacher = ["--teacher-model", f"local-dir:{teacher_dir}", "--bank", "others", "--template", "{}"]
    assert invoke("texts", model, "--add", "kiwi fruit", *by_teacher).exit_code == 0
    teacher = load_teacher(f"local-dir:{teacher_dir}")
    expected = torch.nn.functional.normalize(
        teacher.embed_texts(["a photo of kiwi fruit", "kiwi fruit"])[0], dim=1
    ).numpy()
    banks = Model.open(model).banks
    np.testing.assert_allclose(banks["added"].embeddings[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(banks["others"].embeddings[0], expected[1], atol=1e-5)
    said = invoke(
        "predict", model, val_photos(trained)[0], "--labels", "Kiwi Fruit,lemon", "--format", "jsonl"
    )
    assert {label["label"] for label in json.loads(said.stdout)["labels"]} == {"kiwi fruit", "lemon"}
    assert json.loads(invoke("texts", model, "--json").stdout)["added"] == ["kiwi fruit"]
    other = tmp_path / "other"
    shutil.copytree(teacher_dir, other)
    weights = next(other.glob("*.safetensors"), None) or next(other.glob("*.bin"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    wrong = invoke("texts", model, "--add", "fig", "--teacher-model", f"local-dir:{other}")
    assert (wrong.exit_code, "has other weights" in wrong.stderr) == (1, True)


def test_labels_are_found_by_their_words_their_folder_or_their_text():
    rows = np.eye(3, dtype=np.float32)
    bank = ClassSet(
        labels=("red apple", "plum", "fig"),
        classes=("n001", "n002", ""),
        texts=("a photo of red apple", "a photo of plum", "fig"),
        embeddings=rows,
    )
    chosen = pick({"labels": bank}, ["FIG", "n001", "a photo of plum"])
    assert chosen.labels == ("fig", "red apple", "plum")
    np.testing.assert_array_equal(chosen.embeddings, rows[[2, 0, 1]])


def test_a_student_of_learnt_prompts_is_exported_with_its_texts(trained, tmp_path):
    config = with_settings(RunConfig(), [*SMALL, "prompts.learner=coop", "prompts.n_ctx=2", "train.epochs=1"])
    summary = run(config, cache_dir=trained / "cache", data_dir=trained / "photos", out=tmp_path / "coop")
    info = export_run(tmp_path / "coop", tmp_path / "model", ExportOptions(neighbours=0))
    assert info.bank == "learnt"
    measured = info.measured["float32"]["splits"]["ood_test"]["accuracy"]
    judged = json.loads(invoke("evaluate", tmp_path / "coop", "--device", "cpu", "--json").stdout)
    assert measured == pytest.approx(judged["ood_test"]["accuracy"])
    assert not (tmp_path / "model" / "neighbours.npz").exists()
    assert summary["status"] == "finished"


def test_a_baseline_and_cocoop_are_refused_in_one_line(trained, tmp_path):
    for name, settings, said in (
        ("closed", ["train.baseline=true"], "closed-set baseline"),
        ("cocoop", ["prompts.learner=cocoop", "prompts.n_ctx=2"], "change with the image"),
    ):
        config = with_settings(RunConfig(), [*SMALL, *settings, "train.epochs=1"])
        run(config, cache_dir=trained / "cache", data_dir=trained / "photos", out=tmp_path / name)
        with pytest.raises(UserError, match=said):
            export_run(tmp_path / name, tmp_path / "model")


def test_bench_model_measures_each_beside_the_student_and_the_teacher(exported, teacher_dir, tmp_path):
    words = ["--rounds", "1", "--repeats", "2", "--threads", "1", "--out", tmp_path / "bench.json"]
    ended = invoke("bench-model", exported, *words, "--teacher-model", f"local-dir:{teacher_dir}")
    assert ended.exit_code == 0, ended.output
    found = json.loads((tmp_path / "bench.json").read_text())["found"]
    assert set(found) == {"float32", "float16", "int8", "torch student", "teacher"}
    for one in found.values():
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert min(one["images_per_s"], one["bytes"], one["peak_memory_bytes"], one["speedup"]) > 0
    assert found["float32"]["bytes"] == (exported / "model.onnx").stat().st_size


@contextmanager
def serving(model: Path, *options: str) -> Iterator[Callable[..., tuple[int, Any]]]:
    """Yield a function that asks a running service, and returns the status and the answer."""
    command = [sys.executable, "-m", "cli", "serve", str(model), "--port", "0", *options]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    address = process.stdout.readline().split()[-1]

    def ask(path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
        request = urllib.request.Request(address + path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as error:
            return error.code, json.loads(error.read())

    ask.address = address  # type: ignore[attr-defined]
    try:
        yield ask
    finally:
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 143
    assert "Traceback" not in said, said


@pytest.fixture
def service(exported: Path) -> Iterator[Callable[..., tuple[int, Any]]]:
    """A running service."""
    with serving(exported, "--max-megabytes", "1") as ask:
        yield ask


@pytest.mark.slow
def test_the_service_answers_as_predict_does_and_loses_no_request(service, trained, exported):
    photos = val_photos(trained)
    model = Model.open(exported)
    expected = {
        str(photo): one.labels[0]
        for photo, one in zip(photos, predict(model, photos, model.class_set()), strict=True)
    }
    many = [photos[i % len(photos)] for i in range(500)]
    with concurrent.futures.ThreadPoolExecutor(500) as pool:
        found = list(pool.map(lambda photo: service("/predict?top=2", photo.read_bytes()), many))
    assert Counter(status for status, _ in found) == {200: 500}
    for photo, (_, answer) in zip(many, found, strict=True):
        assert answer["answer"] == expected[str(photo)].label
        assert answer["labels"][0]["score"] == pytest.approx(expected[str(photo)].score, abs=1e-3)


@pytest.mark.slow
def test_a_client_that_asks_too_often_is_told_so(exported):
    with serving(exported, "--rate", "0.01") as ask:
        assert ask("/health")[0] == 200
        assert ask("/health") == (429, {"error": "more than 0.01 requests a second; ask again in a second"})


@pytest.mark.slow
def test_the_service_says_what_is_wrong_in_one_line(service, trained):
    raw = val_photos(trained)[0].read_bytes()
    wide = io.BytesIO()
    Image.effect_noise((1200, 1200), 200).save(wide, format="BMP")
    for path, body, status, said in (
        ("/predict", b"", 400, "the body is empty"),
        ("/predict", b"hello", 415, "is no image"),
        ("/predict", raw[:-60], 415, "is damaged"),
        ("/predict", png_of(30_000), 413, "pixels"),
        ("/predict", wide.getvalue(), 413, "larger than 1 MB"),
        ("/predict?labels=lemonn", raw, 422, "did you mean 'lemon'"),
        ("/predict?labels=", raw, 400, "labels names nothing"),
        ("/predict?bank=x", raw, 422, "no text bank 'x'"),
        ("/predict?top=0", raw, 422, "top is '0'"),
        ("/nothing", raw, 404, "Not Found"),
    ):
        found, answer = service(path, body)
        assert (found, said in answer["error"]) == (status, True), (path, answer)
        assert "\n" not in answer["error"]
    assert service("/predict?labels=plum&labels=lemon", raw)[1]["labels"][1]["label"] in ("plum", "lemon")
    form = (
        b'--B\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n\r\n%b\r\n--B--\r\n' % raw
    )
    kind = {"Content-Type": "multipart/form-data; boundary=B"}
    assert (
        service("/predict?neighbours=3", form, **kind)[1]["labels"] == service("/predict", raw)[1]["labels"]
    )
    assert len(service("/predict?neighbours=3", raw)[1]["neighbours"]) == 3
    assert service("/predict", b"--B--", **kind)[0] == 400
    assert "/predict" in service("/openapi.json")[1]["paths"]


@pytest.mark.slow
def test_an_image_dropped_on_the_page_is_answered_beside_training_images(service, trained):
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here")
    from selenium import webdriver
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage"):
        options.add_argument(word)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(shutil.which("chromedriver")))
    try:
        driver.get(service.address)
        WebDriverWait(driver, 20).until(lambda d: d.find_elements(By.CSS_SELECTOR, "#bank option"))
        driver.find_element(By.ID, "file").send_keys(str(val_photos(trained)[0]))
        WebDriverWait(driver, 20).until(lambda d: d.find_element(By.ID, "best").text)
        assert len(driver.find_elements(By.CSS_SELECTOR, "#scores tr")) == 5
        assert len(driver.find_elements(By.CSS_SELECTOR, "#neighbours img")) == 6
        driver.execute_script(
            "const l = document.getElementById('labels'); l.value = 'lemonn'; l.dispatchEvent(new Event('change'))"
        )
        WebDriverWait(driver, 20).until(lambda d: "did you mean" in d.find_element(By.ID, "said").text)
    finally:
        driver.quit()


def test_a_client_gets_ten_seconds_worth_at_once_and_no_more():
    rates = Rates(2)
    for _ in range(20):
        rates.take("a")
    with pytest.raises(Refused, match="more than 2 requests a second"):
        rates.take("a")
    rates.take("b")


def test_a_model_of_another_schema_is_refused_with_the_command_that_upgrades(plain, tmp_path):
    value = json.loads((plain / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**value, "schema_version": 99}))
    with pytest.raises(UserError, match=r"schema version 99.*pip install --upgrade"):
        ModelInfo.load(tmp_path)


def test_a_name_in_the_card_is_neither_markup_nor_yaml(plain, tmp_path):
    from distill.deploy.card import write_card

    info = ModelInfo.load(plain)
    odd = replace(
        info, name='x"\n- <script>', license="a: b", id_classes=("<img src=x>", "[a](b)"), arch="a`b"
    )
    write_card(tmp_path, odd)
    card = (tmp_path / "README.md").read_text()
    assert "<script>" not in card.split("---", 2)[2]
    assert "<img" not in card
    import yaml

    assert yaml.safe_load(card.split("---")[1])["license"] == "a: b"


def test_a_folder_that_cannot_be_written_is_one_line(trained, tmp_path):
    (tmp_path / "file").write_text("x")
    ended = invoke("export", trained / "run", "--out", tmp_path / "file" / "model")
    assert ended.exit_code == 1
    assert "Traceback" not in ended.output
    assert os.listdir(tmp_path) == ["file"]


def test_a_second_export_to_the_same_folder_is_told_who_writes_it(trained, tmp_path):
    code = (
        "import sys; from pathlib import Path; from cache.locks import only_writer_of_file\n"
        "with only_writer_of_file(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "model")]
    holder = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(UserError, match=f"is being written by process {holder.pid}"):
            export_run(trained / "run", tmp_path / "model")
    finally:
        holder.communicate()
    assert list(tmp_path.iterdir()) == []


def test_texts_are_added_without_touching_what_is_there_and_a_kill_between_loses_none(plain, tmp_path):
    model = tmp_path / "model"
    shutil.copytree(plain, model)
    (model / "README.md").write_text("my own words")
    assert invoke("texts", model, "--add", "kiwi").exit_code == 0
    before = (model / "model.json").read_bytes()
    assert invoke("texts", model, "--add", "fig", "--add", "kiwi").exit_code == 0
    # As if the process had been killed once the bank was written.
    assert (model / "model.json").read_bytes() == before
    assert Model.open(model).banks["added"].labels == ("kiwi", "fig")
    assert (model / "README.md").read_text() == "my own words"
    bank = model / "texts" / "added.npz"
    raw = bank.read_bytes()
    for at in range(0, len(raw), 37):
        bank.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
        with pytest.raises(UserError, match=r"added\.npz is damaged"):
            Model.open(model)


def test_a_student_of_imported_rows_takes_texts_of_the_teacher_that_is_named(
    cached, photos, teacher_dir, tmp_path
):
    config = with_settings(RunConfig(), [*SMALL, "train.epochs=1"])
    run(config, cache_dir=cached.path, data_dir=photos, out=tmp_path / "run")
    export_run(tmp_path / "run", tmp_path / "model")
    nobody = invoke("texts", tmp_path / "model", "--add", "kiwi")
    assert (nobody.exit_code, "no text tower is at hand" in nobody.stderr) == (1, True)
    named = ["--teacher-model", f"local-dir:{teacher_dir}"]
    assert invoke("texts", tmp_path / "model", "--add", "kiwi", *named).exit_code == 0
    assert "kiwi" in Model.open(tmp_path / "model").banks["added"].labels


def test_any_file_name_can_be_predicted_and_hidden_files_are_left_alone(trained, plain, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in (b"\xff.jpg", 'ä, "b".jpg'.encode(), b"two\nlines.jpg", b"._copy.jpg"):
        shutil.copy(val_photos(trained)[0], os.fsencode(folder) + b"/" + name)
    for ending in ("jsonl", "csv"):
        out = tmp_path / f"found.{ending}"
        ended = invoke("predict", plain, folder, "--out", out)
        assert ended.exit_code == 0, ended.output
    lines = [json.loads(line) for line in (tmp_path / "found.jsonl").read_text().splitlines()]
    assert {line["image"] for line in lines} == {
        str(path) for path in folder.iterdir() if not path.name.startswith(".")
    }
    assert len(list(csv.DictReader(io.StringIO((tmp_path / "found.csv").read_text())))) == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", "hot"),
        ("temperature", 0),
        ("embed_dim", -1),
        ("banks", ["../../etc/passwd"]),
        ("bank", "nothing"),
        ("files", []),
        ("preprocessing", {"where": "moon", "resize": 37, "crop": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}),
        ("preprocessing", {"where": "graph", "resize": 9, "crop": 32, "mean": [0, 0, 0], "std": [1, 1, 1]}),
        ("preprocessing", {"where": "graph", "resize": 37, "crop": 32, "mean": ["a"], "std": [1, 1, 1]}),
        ("preprocessing", 7),
    ],
)
def test_a_model_from_elsewhere_that_says_odd_things_is_refused_by_name(plain, tmp_path, name, value):
    told = json.loads((plain / "model.json").read_text())
    del told["sha256"]
    (tmp_path / "model.json").write_text(sealed({**told, name: value}))
    with pytest.raises(UserError, match=r"model\.json is damaged"):
        ModelInfo.load(tmp_path)


def test_a_batch_that_fails_is_told_to_each_and_the_next_is_served():
    def embed(images: np.ndarray) -> np.ndarray:
        if images.max() > 8:
            raise MemoryError("too much")
        return images * 2

    async def ask() -> list[Any]:
        batcher = Batcher(embed, most=4, waiting=8)
        running = asyncio.create_task(batcher.run())
        asked = [batcher.embed(np.full(2, value, dtype=np.float32)) for value in (1, 9, 2)]
        found = await asyncio.gather(*asked, return_exceptions=True)
        # Images of other sizes make no batch: that is told too.
        odd = [batcher.embed(np.zeros(size, dtype=np.float32)) for size in (2, 3)]
        found += await asyncio.gather(*odd, return_exceptions=True)
        found.append(await batcher.embed(np.full(2, 3, dtype=np.float32)))
        running.cancel()
        return found

    *failed, after = asyncio.run(ask())
    assert [type(one) for one in failed] == [MemoryError] * 3 + [ValueError] * 2
    np.testing.assert_array_equal(after, [6, 6])
