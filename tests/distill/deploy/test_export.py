"""From a trained run to a folder that stands alone, each file of it checked against the student."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import ROOT
from helpers.exported import SMALL, image_files, invoke, student_says, val_photos

from cache.runtime.errors import UserError
from cache.sources.decoding import load_rgb
from cli import main
from distill.config import RunConfig
from distill.deploy.check import Written, with_compared
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import ModelInfo
from distill.deploy.model import Model
from distill.deploy.predict import predict
from distill.judge.calibration import fitted_temperature
from distill.judge.evaluate import metrics_of
from distill.judge.open_run import evaluate_run, open_trained
from distill.metrics import harmonic_mean
from distill.settings import with_settings
from distill.train.start import train as run


@pytest.mark.parametrize("folder", ["graph", "plain"])
def test_an_exported_graph_says_what_the_student_says(trained, exported, plain, folder):
    photos = val_photos(trained)
    expected = student_says(trained, photos)
    for precision, most in (("float32", 1e-4), ("float16", 5e-3), ("int8", 0.2)):
        if folder == "plain" and precision != "float32":
            continue
        model = Model.open({"graph": exported, "plain": plain}[folder], precision=precision)
        embeddings = np.concatenate([model.embed(model.prepare(load_rgb(photo))[None]) for photo in photos])
        np.testing.assert_allclose(embeddings, expected, atol=most)
        np.testing.assert_allclose(np.linalg.norm(embeddings, axis=1), 1, atol=1e-3)
        together = model.embed(np.stack([model.prepare(load_rgb(photo)) for photo in photos]))
        np.testing.assert_allclose(together, embeddings, atol=1e-5)


def test_the_other_formats_say_what_the_student_says(trained, exported, plain):
    from safetensors import safe_open
    from safetensors.torch import load_file

    photos = val_photos(trained)
    expected = student_says(trained, photos)
    inputs = torch.from_numpy(np.stack([Model.open(plain).prepare(load_rgb(photo)) for photo in photos]))
    program = torch.export.load(exported / "model.pt2").module()
    np.testing.assert_allclose(program(inputs).detach().numpy(), expected, atol=1e-4)
    student = open_trained(trained / "run", device="cpu").student
    for name, value in load_file(exported / "model.safetensors").items():
        assert torch.equal(value, student.state_dict()[name])
    with safe_open(exported / "model.safetensors", "pt") as file:
        assert file.metadata()["arch"] == "timm:test_resnet"


def test_what_was_measured_is_in_the_card_and_is_what_it_is(trained, exported):
    info = ModelInfo.load(exported)
    assert set(info.measured) == {"float32", "float16", "int8", "torch", "safetensors", "open_clip", "timm"}
    judged = json.loads(
        CliRunner().invoke(main, ["evaluate", str(trained / "run"), "--device", "cpu", "--json"]).stdout
    )
    kept = json.loads((trained / "run" / "summary.json").read_text())["data"]
    assert info.source["identity"] == kept
    assert str(trained) not in json.dumps(kept)
    card = (exported / "README.md").read_text()
    for split in ("id_test", "ood_test"):
        numbers = info.measured["float32"]["splits"][split]
        assert numbers["accuracy"] == pytest.approx(judged[split]["accuracy"])
        assert numbers["largest_difference"] < 1e-4
        assert f"| {split} | {numbers['images']} | {numbers['all_accuracy']:.1f} |" in card
        # Again, from the files alone.
        model = Model.open(exported)
        classes = model.class_set(names=info.id_classes if split == "id_test" else info.ood_classes)
        folder = trained / "photos" / ("val_on_train" if split == "id_test" else "val")
        predictions = list(predict(model, image_files(folder), classes))
        right = [Path(one.image).parent.name == one.labels[0].class_name for one in predictions]
        assert 100 * np.mean(right) == pytest.approx(numbers["accuracy"])
    import yaml

    front = yaml.safe_load(card.split("---")[1])
    assert front["license"] == "mit"
    assert front["pipeline_tag"] == "zero-shot-image-classification"
    stated = front["model-index"][0]["results"][0]["metrics"]
    for metric, name in zip(stated, ("all_accuracy", "accuracy"), strict=True):
        assert metric["value"] == pytest.approx(info.measured["float32"]["splits"]["id_test"][name], abs=0.01)


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_predict_is_right_as_often_as_the_card_says(trained, exported, tmp_path, precision):
    card = (exported / "README.md").read_text()
    row = {line.split(" | ")[2]: line for line in card.splitlines() if line.startswith(f"| {precision} |")}
    stated = {}
    for split, folder in (("id_test", "val_on_train"), ("ood_test", "val")):
        out = tmp_path / f"{split}.jsonl"
        asked = ["predict", exported, trained / "photos" / folder, "--precision", precision, "--out", out]
        assert invoke(*asked).exit_code == 0
        right: dict[str, list[bool]] = {}
        for line in map(json.loads, out.read_text().splitlines()):
            name = Path(line["image"]).parent.name
            right.setdefault(name, []).append(line["labels"][0]["class_name"] == name)
        accuracy = 100 * np.mean([np.mean(of_class) for of_class in right.values()])
        numbers = ModelInfo.load(exported).measured[precision]["splits"][split]
        assert sum(map(len, right.values())) == numbers["images"] == numbers["of"]
        assert accuracy == pytest.approx(numbers["all_accuracy"], abs=1e-9)
        assert row[split].split(" | ")[4] == f"{accuracy:.1f}"
        stated[split] = accuracy
    both = ModelInfo.load(exported).measured[precision]["all_harmonic_mean"]
    assert both == pytest.approx(harmonic_mean(*stated.values()))


def test_a_sample_of_a_split_is_called_one(trained, tmp_path):
    options = ExportOptions(formats=("safetensors",), check_images=4, nearest_images=0)
    info = export_run(trained / "run", tmp_path / "model", options)
    assert info.measured["safetensors"]["splits"]["ood_test"]["images"] == 4
    assert "| ood_test | 4 of 6 |" in (tmp_path / "model" / "README.md").read_text()


def test_the_onnx_file_describes_its_preprocessing(exported, plain):
    import onnx

    for folder, shape, dtype in (
        (exported, ["batch", "height", "width", 3], onnx.TensorProto.UINT8),
        (plain, ["batch", 3, 32, 32], onnx.TensorProto.FLOAT),
    ):
        graph = onnx.load(str(folder / "model.onnx"))
        described = {one.key: one.value for one in graph.metadata_props}
        steps = json.loads(described["preprocessing"])
        assert (steps["resize"], steps["crop"]) == (37, 32)
        assert steps["mean"] == pytest.approx([0.5, 0.5, 0.5])  # the student's own, not ImageNet's
        given = graph.graph.input[0]
        assert given.name == "image"
        assert given.type.tensor_type.elem_type == dtype
        assert [d.dim_param or d.dim_value for d in given.type.tensor_type.shape.dim] == shape


def test_the_threshold_keeps_95_of_100_id_images(trained, exported):
    info = ModelInfo.load(exported)
    for precision in ("float32", "int8"):
        model = Model.open(exported, precision=precision)
        photos = image_files(trained / "photos" / "val_on_train")
        predictions = list(predict(model, photos, model.class_set(names=info.id_classes), reject=True))
        assert sum(one.none_of_these for one in predictions) == 1  # of nine, the 5% below the quantile
        assert info.measured[precision]["splits"]["id_test"]["rejected"] == pytest.approx(100 / 9)
        assert next(one for one in predictions if one.none_of_these).answer == "none of these"
        assert info.reject[precision].id_kept == pytest.approx(100 - 100 / 9)
        assert (info.reject[precision].set_on, info.reject[precision].score) == ("id_test", "mcm")
    assert "**the very test images**" in (exported / "README.md").read_text()


def test_scores_are_softmax_at_the_temperature_that_was_fitted_and_the_card_shows_how_far_they_are_off(
    trained, exported
):
    info, model = ModelInfo.load(exported), Model.open(exported)
    photos = image_files(trained / "photos" / "val_on_train")
    rows = np.concatenate([model.embed(model.prepare(load_rgb(photo))[None]) for photo in photos])
    classes = model.class_set(names=info.id_classes)
    labels = np.array([classes.classes.index(photo.parent.name) for photo in photos])
    fitted = fitted_temperature(rows @ classes.embeddings.T, labels)
    assert info.temperature == info.calibration.temperature == pytest.approx(fitted, rel=1e-3)
    assert (info.calibration.set_on, info.calibration.trained_with) == ("id_test", 0.07)
    logits = rows.astype(np.float64) @ classes.embeddings.T / info.temperature
    expected = np.exp(logits - logits.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    found = [[label.score for label in one.labels] for one in model.answer(rows, classes)]
    np.testing.assert_allclose(found, -np.sort(-expected), rtol=1e-4)
    card = (exported / "README.md").read_text()
    ece = info.calibration.splits["id_test"]
    assert f"| id_test | 9 | its own 3 classes | {ece.before:.1f} | {ece.ece:.1f} |" in card
    assert "![How often answers of some probability are right](reliability.png)" in card
    assert "reliability.png" in info.files


@pytest.fixture(scope="module")
def learnt(trained, tmp_path_factory) -> Path:
    """A folder with a run that learnt prompts and set images aside, and what was exported of it."""
    root = tmp_path_factory.mktemp("learnt")
    settings = ["prompts.learner=coop", "prompts.n_ctx=2", "train.epochs=1", "data.id_val=0.3"]
    config = with_settings(RunConfig(), [*SMALL, *settings])
    run(config, cache_dir=trained / "cache", data_dir=trained / "photos", out=root / "run")
    export_run(root / "run", root / "model", ExportOptions(nearest_images=0))
    return root


def test_the_threshold_is_set_on_images_set_aside_and_what_it_does_is_measured_on_the_test(trained, learnt):
    info = ModelInfo.load(learnt / "model")
    model, reject = Model.open(learnt / "model"), info.reject["float32"]
    opened = open_trained(learnt / "run", device="cpu")
    (aside,) = opened.wanted(["id_val"])
    id_texts = model.class_set(names=info.id_classes).embeddings

    def odds(photos):
        rows = np.stack([model.embed(model.prepare(load_rgb(p))[None])[0] for p in photos])
        scores = np.sort(np.exp(rows.astype(np.float64) @ id_texts.T / info.temperature))
        return np.log(scores[:, -1] / scores[:, :-1].sum(axis=1))

    folders = [image_files(trained / "photos" / name) for name in ("val_on_train", "val")]
    kept, new = (odds(folder) for folder in folders)
    least = np.quantile(odds([Path(image.where) for image in aside.pixels.samples]), 0.05)
    of_three = next(one.least for one in reject.thresholds if one.names == 3)
    assert (reject.set_on, reject.score, of_three) == ("id_val", "mcm", pytest.approx(least, abs=1e-4))
    assert info.calibration.set_on == "id_val"
    assert reject.id_kept == pytest.approx(100 * (kept >= least).mean())
    told = reject.unknown["ood_test"]
    assert (told.images, told.rejected) == (len(new), pytest.approx(100 * (new < least).mean()))
    assert told.auroc == pytest.approx(np.mean([[a > b for b in new] for a in kept]))
    assert told.fpr95 == pytest.approx(100 * (new >= np.quantile(kept, 0.05)).mean())
    assert set(info.measured["float32"]["splits"]) == {"id_test", "ood_test"}
    asked = invoke("predict", learnt / "model", folders[1][0], "--reject", "--format", "jsonl")
    assert "by MCM, without a vocabulary, set on id_val; among the ID classes it keeps" in asked.stderr
    assert json.loads(asked.stdout)["labels"]


@pytest.mark.parametrize(
    ("auroc", "low", "high", "weak"),
    [
        (0.58, 0.56, 0.6, True),
        (0.7, 0.45, 0.9, True),
        (0.2, 0.1, 0.3, True),
        (0.62, 0.6, 0.7, False),
        (0.8, 0.7, 0.9, False),
    ],
)
def test_where_id_and_ood_are_hardly_told_apart_card_and_predict_say_so(
    trained, plain, tmp_path, auroc, low, high, weak
):
    from distill.deploy.card import write_card

    info = ModelInfo.load(plain)
    reject = info.reject["float32"]
    odd = replace(reject.unknown["ood_test"], auroc=auroc, low=low, high=high)
    shutil.copytree(plain, tmp_path / "model")
    changed = replace(info, reject={"float32": replace(reject, unknown={"ood_test": odd})})
    changed.save(tmp_path / "model")
    write_card(tmp_path / "model", changed)
    assert ("do not rely on `--reject`" in (tmp_path / "model" / "README.md").read_text()) == weak
    printed = invoke("predict", tmp_path / "model", val_photos(trained)[0], "--reject").stderr
    assert ("near chance or worse, do not rely on it" in printed) == weak
    assert f"AUROC of ID against them {auroc:.3f}, {low:.3f} to {high:.3f}" in printed


def test_no_file_that_is_published_holds_a_path_of_the_machine(trained, exported, teacher_dir):
    places = [trained, teacher_dir, ROOT, Path.home(), Path(sys.prefix), Path(torch.__file__).parent]
    held = {
        (str(file.relative_to(exported)), str(place))
        for file in exported.rglob("*")
        if file.is_file()
        for place in places
        if str(place).encode() in unpacked(file)
    }
    assert held == set()
    source = ModelInfo.load(exported).source
    assert (source["run"], source["data"]) == ("run", "photos")
    assert source["teacher"]["model"] == f"local-dir:{teacher_dir.name}"


def unpacked(file: Path) -> bytes:
    if not zipfile.is_zipfile(file):
        return file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        return b"".join(archive.read(name) for name in archive.namelist())


def test_an_export_that_fails_leaves_nothing(trained, tmp_path, monkeypatch):
    import distill.deploy.check

    monkeypatch.setattr(distill.deploy.check, "FLOAT32_DIFFERENCE", -1.0)
    with pytest.raises(UserError, match=r"model\.safetensors differs from the student"):
        export_run(trained / "run", tmp_path / "model", ExportOptions(formats=("safetensors",)))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["float32", "torch", "safetensors", "float16", "int8"])
def test_a_file_of_float32_that_differs_from_the_student_is_refused(plain, name):
    info, far = ModelInfo.load(plain), {"ood_test": {"largest_difference": 2e-4}}
    file = Written(name=name, path=plain / "model.onnx", embed=np.asarray)
    if name in ("float16", "int8"):
        assert with_compared(info, file, far, 5).measured[name]["splits"] == far
        return
    with pytest.raises(UserError, match=r"model\.onnx differs from the student by 0\.0002 on ood_test"):
        with_compared(info, file, far, 5)


def test_a_student_of_learnt_prompts_is_exported_with_its_texts(learnt):
    info = ModelInfo.load(learnt / "model")
    assert info.bank == "learnt"
    measured = info.measured["float32"]["splits"]["ood_test"]["accuracy"]
    judged = json.loads(invoke("evaluate", learnt / "run", "--device", "cpu", "--json").stdout)
    assert measured == pytest.approx(judged["ood_test"]["accuracy"])
    assert not (learnt / "model" / "nearest_images.npz").exists()
    assert json.loads((learnt / "run" / "summary.json").read_text())["status"] == "finished"


def test_a_baseline_and_cocoop_are_refused_in_one_line(trained, tmp_path):
    for name, settings, message in (
        ("closed", ["train.closed_set=true"], "closed-set student"),
        ("cocoop", ["prompts.learner=cocoop", "prompts.n_ctx=2"], "change with the image"),
    ):
        config = with_settings(RunConfig(), [*SMALL, *settings, "train.epochs=1"])
        run(config, cache_dir=trained / "cache", data_dir=trained / "photos", out=tmp_path / name)
        with pytest.raises(UserError, match=message):
            export_run(tmp_path / name, tmp_path / "model")
    # Where texts depend on the image, all classes compete as well.
    judged = evaluate_run(tmp_path / "cocoop", device="cpu")
    last = json.loads((tmp_path / "cocoop" / "metrics.jsonl").read_text().splitlines()[-1])
    assert judged["ood_test"].among_all.classes == 5
    assert metrics_of(judged) == pytest.approx({name: last[name] for name in metrics_of(judged)}, rel=1e-5)


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
        "import sys; from pathlib import Path; from cache.runtime.locks import only_writer_of_file\n"
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
