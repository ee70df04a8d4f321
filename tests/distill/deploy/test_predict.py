"""A shipped model at work: labels for images, new texts, speed, without torch and without the run."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.exported import SMALL, invoke, val_photos
from PIL import Image

from cache.runtime.errors import UserError
from cache.store.checksums import with_checksum
from distill.config import RunConfig
from distill.deploy.class_sets import ClassSet, pick
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import ModelInfo, bank_file
from distill.deploy.model import Model
from distill.deploy.predict import predict
from distill.settings import with_settings
from distill.train.start import train as run

REJECT = {
    "score": "mcm",
    "temperature": 0.1,
    "thresholds": [{"names": 2, "least": 0.0}],
    "set_on": "id_val",
    "images": 9,
}


def test_onnxruntime_is_told_to_tell_nobody_before_it_is_imported(plain):
    code = (
        "import os, sys; from distill.deploy.onnx_door import import_onnxruntime\n"
        "assert 'onnxruntime' not in sys.modules; import_onnxruntime(); print(os.environ['ORT_DISABLE_TELEMETRY'])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert printed.stdout == "1\n", printed.stderr
    script = (plain / "classify.py").read_text()
    assert script.index("ORT_DISABLE_TELEMETRY") < script.index("import onnxruntime")


def test_the_folder_is_used_by_its_own_script_where_nothing_else_is_installed(trained, plain, tmp_path):
    moved, cold, photo = tmp_path / "elsewhere", tmp_path / "cold", tmp_path / "grey16.png"
    grey = np.asarray(Image.open(val_photos(trained)[0]).convert("L"))
    Image.fromarray(grey.astype(np.uint16) * 257).save(photo)
    shutil.copytree(plain, moved)
    shutil.copytree(plain, cold)
    # exp(1 / 0.001) is no float32
    replace(ModelInfo.load(plain), temperature=0.001, unlike={"float32": 0.9211}).save(cold)
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
runpy.run_path({str(cold / "classify.py")!r}, run_name="__main__")
"""
    ended = subprocess.run([sys.executable, "-c", guard], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    source = (moved / "classify.py").read_text()
    assert set(re.findall(r"^(?:import|from) (\w+)", source, re.M)) - allowed <= {
        "json",
        "os",
        "sys",
        "pathlib",
    }
    assert ended.stderr == "model.onnx does not answer as its student does: mean cosine 0.921\n"
    lines = [line.split("\t") for line in ended.stdout.splitlines()]
    expected = []
    for model in (Model.open(moved), Model.open(cold)):
        expected += next(predict(model, [photo], model.class_set())).labels
    assert [label for _, label, _ in lines] == [label.label for label in expected]
    assert [float(score) for *_, score in lines] == pytest.approx(
        [label.score for label in expected], abs=1e-4
    )


def test_predicting_imports_neither_torch_nor_h5py(trained, plain, tmp_path):
    own = shutil.copytree(plain, tmp_path / "model")
    info = ModelInfo.load(own)
    replace(info, preprocessing=replace(info.preprocessing, decoder="pillow")).save(own)
    code = (
        "import sys; from cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as end: assert not end.code\n"
        "print([m for m in ('torch', 'h5py', 'timm', 'open_clip', 'onnx') if m in sys.modules])"
    )
    words = ["predict", str(own), str(trained / "photos" / "val"), "--format", "jsonl"]
    ended = subprocess.run([sys.executable, "-c", code, *words], cwd=ROOT, capture_output=True, text=True)
    assert ended.stdout.splitlines()[-1] == "[]", ended.stderr


def test_predictions_come_as_a_table_as_json_lines_and_as_csv(trained, plain, tmp_path):
    photos = trained / "photos" / "val"
    shutil.copy(val_photos(trained)[0], tmp_path / "one.jpg")  # no path with a class's name
    told = invoke("predict", plain, tmp_path / "one.jpg", "--names", "lemon,plum").stdout
    assert {"lemon", "plum", "one.jpg"} <= {*told.replace(str(tmp_path) + "/", "").split()}, told
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    ended = invoke("predict", plain, photos, broken, "--names", "lemon,plum", "--format", "jsonl")
    lines = [json.loads(line) for line in ended.stdout.splitlines()]
    assert ended.exit_code == 0
    assert len(lines) == 7
    assert "error" in lines[-1]
    assert "skipped" in ended.stderr
    for line in lines[:-1]:
        assert {label["label"] for label in line["labels"]} == {"lemon", "plum"}
        assert sum(label["score"] for label in line["labels"]) == pytest.approx(1, abs=1e-5)
    out = tmp_path / "found.csv"
    assert invoke("predict", plain, photos, "--top", "2", "--out", out).exit_code == 0
    rows = list(csv.DictReader(io.StringIO(out.read_text())))
    assert len(rows) == 6
    assert list(rows[0]) == ["image", "answer", "label_1", "score_1", "label_2", "score_2", "error"]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["predict", "MODEL", "PHOTO", "--names", "lemonn"], 1, "did you mean 'lemon'"),
        (["predict", "MODEL", "PHOTO", "--names", ""], 2, "--names is empty"),
        (["predict", "MODEL", "PHOTO", "--names", "lemon,lemon"], 2, "is there twice"),
        (["predict", "MODEL", "PHOTO", "--bank", "lables"], 1, "did you mean 'labels'"),
        (["predict", "MODEL", "PHOTO", "--precision", "int8"], 1, "holds no ONNX model of precision int8"),
        (["predict", "MODEL", "nowhere.jpg"], 2, "nowhere.jpg"),
        (["predict", "MODEL", "EMPTY"], 1, "holds no picture"),
        (["predict", "EMPTY", "PHOTO"], 1, "is not an exported model"),
        (["predict", "MODEL", "TEXT"], 1, "of no picture format"),
        (["predict", "MODEL", "LIST"], 2, "a list of pictures is .csv, .tsv or .jsonl"),
        (["predict", "MODEL", "PHOTO", "--out", "x.csv", "--format", "table"], 2, "jsonl or csv"),
        (["export", "RUN", "--out", "MODEL"], 1, "exists and is not empty"),
        (["export", "RUN", "--out", "x", "--precisions", "int9"], 2, "did you mean 'int8'"),
        (["export", "RUN", "--out", "x", "--formats", ""], 2, "--formats names ''"),
        (["export", "EMPTY", "--out", "x"], 1, "there is no checkpoint"),
        (["export", "RUN", "--out", "x", "--teacher", "other"], 1, "did not learn from a teacher 'other'"),
        (["texts", "MODEL", "--bank", "x"], 2, "--bank is of --add"),
        (["texts", "MODEL", "--add", "kiwi", "--bank", "labels"], 1, "was exported with the model"),
        (["texts", "MODEL", "--add", "kiwi", "--bank", "../x"], 2, "cannot name a file"),
        (["texts", "MODEL", "--add", "kiwi", "--template", "a photo"], 2, "has no single {}"),
        (["texts", "MODEL", "--add", "kiwi"], 2, "give --cache"),
        (["serve", "EMPTY"], 1, "is not an exported model"),
        (["bench-model", "EMPTY"], 1, "is not an exported model"),
        (["bench-model", "MODEL", "--pretrained", "openai"], 2, "--pretrained is of --teacher-model"),
        (["bench-model", "MODEL", "--run", "EMPTY"], 1, "has no last.pt"),
    ],
)
def test_wrong_input_is_one_line_and_the_right_status(
    trained, plain, tmp_path, monkeypatch, words, status, message
):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.jpg").write_text("hello")
    (tmp_path / "list.txt").write_text("text.jpg")
    put = {
        "LIST": tmp_path / "list.txt", "MODEL": plain, "RUN": trained / "run", "PHOTO": val_photos(trained)[0], "EMPTY": tmp_path / "empty",
        "TEXT": tmp_path / "text.jpg",
    }  # fmt: skip
    monkeypatch.chdir(tmp_path)
    ended = invoke(*(put.get(word, word) for word in words))
    assert ended.exit_code == status, ended.output
    assert message in ended.output
    assert "Traceback" not in ended.output
    assert not list(tmp_path.glob(".*.export"))


def test_a_damaged_folder_is_refused_by_name(plain, tmp_path):
    for file, message in (
        ("model.onnx", r"model\.onnx is damaged"),
        ("texts/labels.npz", r"labels\.npz is damaged"),
        ("model.json", r"model\.json is damaged"),
    ):
        copy = tmp_path / file.replace("/", "-")
        shutil.copytree(plain, copy)
        raw = bytearray((copy / file).read_bytes())
        raw[len(raw) // 2] ^= 1
        (copy / file).write_bytes(raw)
        with pytest.raises(UserError, match=message):
            Model.open(copy)
    (copy / "model.json").unlink()
    shutil.copy(plain / "model.json", copy)
    (copy / "model.onnx").unlink()
    with pytest.raises(UserError, match=r"model\.onnx is missing"):
        Model.open(copy)


def test_new_texts_are_those_of_the_teacher_and_can_be_chosen(trained, plain, teacher_dir, tmp_path):
    from cache.teacher.load import load_teacher

    model = tmp_path / "model"
    shutil.copytree(plain, model)
    by_cache = ["--cache", trained / "cache"]
    assert "added 'kiwi fruit'" in invoke("texts", model, "--add", "kiwi fruit", *by_cache).stdout
    by_teacher = ["--teacher-model", f"local-dir:{teacher_dir}", "--bank", "others", "--template", "{}"]
    assert invoke("texts", model, "--add", "kiwi fruit", *by_teacher).exit_code == 0
    teacher = load_teacher(f"local-dir:{teacher_dir}")
    expected = torch.nn.functional.normalize(
        teacher.embed_texts(["a photo of kiwi fruit", "kiwi fruit"])[0], dim=1
    ).numpy()
    banks = Model.open(model).banks
    np.testing.assert_allclose(banks["added"].embeddings[0], expected[0], atol=1e-5)
    np.testing.assert_allclose(banks["others"].embeddings[0], expected[1], atol=1e-5)
    added = invoke(
        "predict", model, val_photos(trained)[0], "--names", "Kiwi Fruit,lemon", "--format", "jsonl"
    )
    assert {label["label"] for label in json.loads(added.stdout)["labels"]} == {"kiwi fruit", "lemon"}
    assert json.loads(invoke("texts", model, "--json").stdout)["banks"]["added"] == ["kiwi fruit"]
    other = tmp_path / "other"
    shutil.copytree(teacher_dir, other)
    weights = next(other.glob("*.safetensors"), None) or next(other.glob("*.bin"))
    raw = bytearray(weights.read_bytes())
    raw[-1] ^= 1
    weights.write_bytes(raw)
    wrong = invoke("texts", model, "--add", "fig", "--teacher-model", f"local-dir:{other}")
    assert (wrong.exit_code, "are not the ones that were asked for" in wrong.stderr) == (1, True)


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


def test_bench_model_measures_each_beside_the_student_and_the_teacher(
    trained, exported, teacher_dir, tmp_path, forked
):
    words = ["--rounds", "1", "--repeats", "2", "--threads", "1", "--out", tmp_path / "bench.json"]
    words += ["--run", trained / "run"]
    ended = invoke("bench-model", exported, *words, "--teacher-model", f"local-dir:{teacher_dir}")
    assert ended.exit_code == 0, ended.output
    measured = json.loads((tmp_path / "bench.json").read_text())["found"]
    assert set(measured) == {"float32", "float16", "int8", "torch student", "teacher"}
    for one in measured.values():
        assert 0 < one["p50_ms"] <= one["p99_ms"]
        assert min(one["images_per_s"], one["bytes"], one["peak_memory_bytes"], one["speedup"]) > 0
    assert measured["float32"]["bytes"] == (exported / "model.onnx").stat().st_size


def test_a_model_of_another_schema_is_refused_with_the_command_that_upgrades(plain, tmp_path):
    value = json.loads((plain / "model.json").read_text())
    (tmp_path / "model.json").write_text(json.dumps({**value, "schema_version": 99}))
    with pytest.raises(UserError, match=r"schema version 99.*bring yours up to date"):
        ModelInfo.load(tmp_path)


def test_texts_are_added_without_touching_what_is_there_and_a_kill_between_loses_none(
    trained, plain, tmp_path
):
    model = tmp_path / "model"
    shutil.copytree(plain, model)
    (model / "README.md").write_text("my own words")
    by_cache = ["--cache", trained / "cache"]
    assert invoke("texts", model, "--add", "kiwi", *by_cache).exit_code == 0
    before = (model / "model.json").read_bytes()
    assert invoke("texts", model, "--add", "fig", "--add", "kiwi", *by_cache).exit_code == 0
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
    export_run(tmp_path / "run", tmp_path / "model", ExportOptions(formats=("safetensors",)))
    nobody = invoke("texts", tmp_path / "model", "--add", "kiwi", "--cache", cached.path)
    assert (nobody.exit_code, "keeps no text tower" in nobody.stderr) == (1, True)
    named = ["--teacher-model", f"local-dir:{teacher_dir}"]
    assert invoke("texts", tmp_path / "model", "--add", "kiwi", *named).exit_code == 0
    info = ModelInfo.load(tmp_path / "model")
    added = ClassSet.load(tmp_path / "model" / bank_file(info.banks[-1]), embed_dim=info.embed_dim)
    assert (info.banks[-1], added.labels) == ("added", ("kiwi",))


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
        (
            "preprocessing",
            {"where": "graph", "resize": 10**5, "crop": 10**5, "mean": [0] * 3, "std": [1] * 3},
        ),
        ("preprocessing", 7),
        ("arch", 3),
        ("id_classes", ["ant", 3]),
        ("source", {"run": "/home/me/run"}),
        ("reject", {"float32": 0.3}),
        ("reject", {"float32": {**REJECT, "thresholds": []}}),
        ("reject", {"float32": {**REJECT, "thresholds": [{"names": 2, "least": "low"}]}}),
        ("reject", {"float32": {**REJECT, "set_on": "somewhere"}}),
        ("reject", {"float32": {**REJECT, "score": "cosine"}}),
        ("reject", {"float32": {**REJECT, "unknown": {"ood_test": {"auroc": 0.7}}}}),
        ("calibration", {"temperature": -1}),
    ],
)
def test_a_model_from_elsewhere_that_says_odd_things_is_refused_by_name(plain, tmp_path, name, value):
    told = json.loads((plain / "model.json").read_text())
    del told["sha256"]
    (tmp_path / "model.json").write_text(with_checksum({**told, name: value}))
    with pytest.raises(UserError, match=r"model\.json is damaged"):
        ModelInfo.load(tmp_path)


def test_a_graph_that_takes_other_images_than_its_model_json_says_is_one_line(plain, trained, tmp_path):
    model = shutil.copytree(plain, tmp_path / "model")
    info = ModelInfo.load(model)
    steps = replace(info.preprocessing, crop=info.preprocessing.crop + 1)
    replace(info, preprocessing=steps).save(model)
    ended = invoke("predict", model, val_photos(trained)[0])
    assert (ended.exit_code, "the model.json beside it says" in ended.stderr) == (1, True), ended.output
