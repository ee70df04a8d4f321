"""Students of episodes, shipped: graphs that say what the student says, and objects for files of episodes."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from conftest import ROOT
from helpers.exported import invoke

from cache.runtime.errors import UserError
from cache.sources.episodes import EpisodeFolder
from distill.config import RunConfig
from distill.deploy.episode_model import EpisodeModel, resized
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import ModelInfo
from distill.deploy.model import Model
from distill.deploy.predict_episodes import episodes_in, predict_episodes
from distill.deploy.web import write_web
from distill.judge.model import outputs_of
from distill.judge.open_run import evaluate_run, open_trained
from distill.settings import with_settings
from distill.train.start import train

SMALL = [
    "student.arch=timm:test_resnet", "student.image_size=64", "train.epochs=2", "train.batch_size=6", "train.device=cpu",
    "optim.lr=0.01", "data.workers=0", "data.policy=flip", "loss.mse=1", "loss.im_cst=1", "train.precision=float32",
    "loss.vlalign=0", "loss.cap=0",
]  # fmt: skip
ALL = ExportOptions(formats=("onnx", "torch", "safetensors"), precisions=("float32", "float16", "int8"))


def trained_on_episodes(root: Path, episodes: Path, cache: Path, *settings: str) -> Path:
    config = with_settings(RunConfig(), [*SMALL, *settings])
    train(config, cache_dir=cache, data_dir=episodes, out=root)
    return root


@pytest.fixture(scope="module")
def run(tmp_path_factory, episodes, episode_cache) -> Path:
    """A run whose student classifies every location."""
    root = tmp_path_factory.mktemp("episode_run") / "run"
    return trained_on_episodes(root, episodes, episode_cache, "robotics.local=true")


@pytest.fixture(scope="module")
def model(run) -> Path:
    """All that can be exported of it."""
    export_run(run, run.parent / "model", ALL)
    return run.parent / "model"


def test_a_model_of_episodes_is_no_page(model, tmp_path):
    with pytest.raises(UserError, match="is a model of episodes, and a page is shown photos"):
        write_web(model, tmp_path / "page")


def student_scores(run: Path, split_name: str) -> np.ndarray:
    """Scores by the torch student, its own way."""
    opened = open_trained(run, device="cpu")
    (split,) = opened.wanted([split_name])
    rows = torch.cat([outputs for outputs, _ in outputs_of(opened.model, split)])
    bias = torch.tanh(opened.student.score_bias.detach())
    return (rows[:, -len(split.class_names) :].sigmoid() + bias).clamp(0, 1).numpy()


def scores_of(model: Path, file: Path, **given: object) -> np.ndarray:
    """Scores by the shipped model, episodes and objects sorted."""
    opened = EpisodeModel.open(model, **given)
    objects = opened.objects()
    answers = predict_episodes(opened, episodes_in([file], opened.scoring.keys), objects, top=len(objects))
    return np.array(
        [[label.score for label in sorted(one.labels, key=lambda label: label.class_name)] for one in answers]
    )


@pytest.mark.parametrize(("precision", "most"), [("float32", 1e-3), ("float16", 0.05), ("int8", 0.5)])
def test_a_shipped_model_scores_objects_as_the_student_does(run, model, episodes, precision, most):
    expected = student_scores(run, "ood_test")
    names = open_trained(run, device="cpu").folder.split("ood_test").classes
    in_order = expected[:, np.argsort(names)]
    measured = scores_of(model, episodes / "val.h5", precision=precision)
    np.testing.assert_allclose(measured, in_order, atol=most)


def test_the_epochs_that_fit_int8_are_refused(run, tmp_path):
    with pytest.raises(UserError, match="of photos, and this run is of episodes"):
        export_run(run, tmp_path / "model", ExportOptions(int8="qat"))


@pytest.mark.parametrize("settings", [("prompts.learner=coop", "prompts.n_ctx=2"), ('text="descriptions"',)])
def test_global_scores_learnt_prompts_and_other_texts_are_shipped_too(
    tmp_path, episodes, episode_cache, settings
):
    run = trained_on_episodes(tmp_path / "run", episodes, episode_cache, *settings)
    info = export_run(run, tmp_path / "model")
    expected = student_scores(run, "ood_test")
    names = open_trained(run, device="cpu").folder.split("ood_test").classes
    measured = scores_of(tmp_path / "model", episodes / "val.h5")
    np.testing.assert_allclose(measured, expected[:, np.argsort(names)], atol=1e-3)
    own = "learnt" if settings[:1] == ("prompts.learner=coop",) else "descriptions"
    assert info.bank == own
    assert info.objects.negatives[own] == ("negative_learnt" if own == "learnt" else "negative_labels")
    assert not (tmp_path / "model" / "classify.py").exists()


def test_what_was_measured_is_what_evaluate_says_and_is_in_the_card(run, model):
    info, judged = ModelInfo.load(model), evaluate_run(run, device="cpu")
    assert set(info.measured) == {"float32", "float16", "int8", "torch", "safetensors"}
    card = (model / "README.md").read_text()
    for split in ("id_test", "ood_test"):
        numbers = info.measured["float32"]["splits"][split]
        for name, value in judged[split].groups["all"].items():
            assert numbers[name] == pytest.approx(value)
        assert numbers["student_average_precision"] == pytest.approx(
            judged[split].groups["all"]["average_precision"]
        )
        assert numbers["largest_difference"] < 1e-4
        assert f"| float32 | {info.measured['float32']['bytes'] / 1e6:.1f} | {split} | " in card
    assert info.preprocessing.channels == 8
    assert info.objects.threshold == 0.5
    assert "[B, 8, 64, 64]" in card


def test_predict_gives_each_episodes_objects_as_lines(model, episodes, tmp_path):
    asked = invoke("predict", model, episodes / "val.h5", "--format", "jsonl", "--top", 30)
    assert asked.exit_code == 0, asked.output
    lines = [json.loads(line) for line in asked.stdout.splitlines()]
    with h5py.File(episodes / "val.h5") as file:
        assert [line["episode"] for line in lines] == [f"{episodes / 'val.h5'}/{key}" for key in file]
    for line in lines:
        scores = [label["score"] for label in line["labels"]]
        assert len(scores) == 26
        assert scores == sorted(scores, reverse=True)
        assert line["objects"] == [label["label"] for label in line["labels"] if label["score"] >= 0.5]
    every = invoke("predict", model, episodes, "--threshold", 0, "--format", "csv")
    header, first, *rest = every.stdout.splitlines()
    assert header.startswith("episode,answer,label_1,score_1")
    assert first.count(";") == 25  # all objects are there
    assert len(rest) == 16 + 6 + 14 - 1
    two = invoke("predict", model, episodes / "val.h5", "--names", "plain red circle,dotted blue star")
    assert "dotted blue star" in two.stdout
    assert invoke("predict", model, episodes / "val.h5", "--bank", "descriptions").exit_code == 0


def test_episodes_need_no_labels_and_one_that_is_broken_stops_no_other(model, episodes, tmp_path):
    with h5py.File(episodes / "val.h5") as source, h5py.File(tmp_path / "new.h5", "w") as file:
        first, second, third = list(source)[:3]
        for key in (first, second, third):
            source.copy(key, file)
            del file[f"{key}/model_ids"]
        del file[f"{second}/dict_str_hand_camera/dict_str_depth"]
    asked = invoke("predict", model, tmp_path / "new.h5", "--format", "jsonl")
    lines = [json.loads(line) for line in asked.stdout.splitlines()]
    assert [sorted(line) for line in lines] == [
        ["episode", "labels", "objects"],
        ["episode", "error"],
        ["episode", "labels", "objects"],
    ]
    assert "has no dict_str_hand_camera/dict_str_depth" in lines[1]["error"]
    assert "--episode-keys" not in lines[1]["error"]  # which predict has not
    assert "1 of 3 episodes could not be read." in asked.stderr
    assert asked.exit_code == 0


def test_a_file_that_holds_no_episode_stops_no_other(model, episodes, tmp_path):
    (tmp_path / "broken.h5").write_bytes((episodes / "val.h5").read_bytes()[:1000])
    h5py.File(tmp_path / "empty.h5", "w").close()
    asked = invoke("predict", model, tmp_path, episodes / "val.h5", "--format", "jsonl")
    broken, empty, *others = [json.loads(line) for line in asked.stdout.splitlines()]
    assert broken["episode"] == str(tmp_path / "broken.h5")
    assert "is no readable HDF5 file" in broken["error"]
    assert "holds no episode" in empty["error"]
    with h5py.File(episodes / "val.h5") as file:
        assert len(others) == len(file)
    assert not any("error" in line for line in others)
    assert "--episode-keys" not in asked.output  # which predict has not
    assert "objects.keys in its model.json" in empty["error"]
    assert asked.exit_code == 0
    alone = invoke("predict", model, tmp_path / "broken.h5")
    assert (alone.exit_code, "1 of 1 episodes could not be read." in alone.stderr) == (1, True)


def test_what_a_model_of_episodes_cannot_do_is_one_line(model, run, plain, episodes, tmp_path):
    for words, message in (
        (("serve", model), "is a model of episodes, not of photos"),
        (("texts", model, "--add", "zebra"), "have a positive and a negative text each"),
        (("predict", model, episodes / "val.h5", "--reject"), "--reject is of models of photos"),
        (("predict", plain, ROOT / "README.md", "--threshold", 0.5), "--threshold is of models of episodes"),
        (("predict", model, tmp_path), "has no files of episodes"),
        (("predict", model, episodes, "--bank", "negative_labels"), "has no text bank 'negative_labels'"),
        (("predict", model, episodes, "--names", "plain red circel"), "did you mean 'plain red circle'"),
        (("export", run, "--out", tmp_path / "x", "--preprocessing", "graph"), "is of photos"),
    ):
        asked = invoke(*words)
        assert asked.exit_code in (1, 2), words
        assert message in asked.stderr, asked.stderr
        assert "Traceback" not in asked.output
        assert asked.stderr.strip().splitlines()[-1].startswith(("Error: ", "error: "))
    with pytest.raises(UserError, match="is a model of photos, not of episodes"):
        EpisodeModel.open(plain)
    with pytest.raises(UserError, match="is a model of episodes, not of photos"):
        Model.open(model)


def test_a_baseline_of_episodes_is_refused(tmp_path, episodes, episode_cache):
    run = trained_on_episodes(
        tmp_path / "run", episodes, episode_cache, "train.closed_set=true", "train.epochs=1"
    )
    with pytest.raises(UserError, match="closed-set student"):
        export_run(run, tmp_path / "model")


def test_bench_model_measures_a_model_of_episodes(model, tmp_path, forked):
    out = tmp_path / "bench.json"
    asked = invoke("bench-model", model, "--rounds", 1, "--repeats", 2, "--out", out)
    assert asked.exit_code == 0, asked.output
    assert {"float32", "float16", "int8", "torch student"} <= set(json.loads(out.read_text())["found"])
    assert ("episodes/s (32)" in asked.stdout, "images/s" in asked.stdout) == (True, False)


def test_predicting_episodes_imports_no_torch(model, episodes):
    code = (
        "import sys\nfrom cli import main\n"
        f"main(['predict', {str(model)!r}, {str(episodes / 'val.h5')!r}], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize(
    "objects",
    [{"threshold": 2.0}, {"bias": "x"}, {"local": 1}, {"negatives": {}}, {"negatives": {"labels": "nowhere"}}, {"keys": {}}],
)  # fmt: skip
def test_a_model_json_that_says_odd_things_of_its_objects_is_refused(model, tmp_path, objects):
    from cache.store.checksums import with_checksum

    value = json.loads((model / "model.json").read_text())
    value.pop("sha256")
    value["objects"] |= objects
    (tmp_path / "model.json").write_text(with_checksum(value) + "\n")
    with pytest.raises(UserError, match=r"model\.json is damaged"):
        ModelInfo.load(tmp_path)


@pytest.mark.parametrize(
    ("height", "width", "side"), [(20, 24, 32), (480, 640, 224), (32, 32, 32), (100, 50, 64)]
)
def test_pictures_are_resized_as_torch_does_it(height, width, side):
    picture = np.random.default_rng(0).random((height, width, 3)).astype(np.float32)
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(picture).permute(2, 0, 1)[None], size=(side, side), mode="bicubic"
    )[0]
    np.testing.assert_allclose(resized(picture, side), expected, atol=5e-5)


def test_one_camera_without_depth_goes_the_whole_way(tmp_path, teacher_dir):
    """Files of another layout: cached, trained, judged, exported, predicted; the mapping is given once."""
    (tmp_path / "data").mkdir()
    rng = np.random.default_rng(0)
    for name, shown in (("train", (["red_mug"], ["red_mug", "blue_bowl"])), ("val", (["green_plate"],))):
        with h5py.File(tmp_path / "data" / f"{name}.h5", "w") as file:
            for number in range(12):
                demo = file.create_group(f"data/demo_{number:02d}")
                picture = rng.integers(0, 256, size=(2, 40, 48, 3), dtype=np.uint8)
                demo["obs/agentview_image"] = picture
                demo.attrs["objects"] = json.dumps(shown[number % len(shown)])
    (tmp_path / "keys.toml").write_text(
        'episodes = "data"\nobjects = "@objects"\nstep = -1\n'
        'cameras = [{rgb = "obs/agentview_image", axes = "THWC"}]\n'
    )

    def call(*words: object) -> str:
        asked = invoke(*words)
        assert asked.exit_code == 0, asked.output
        return asked.stdout

    data, cache, run = tmp_path / "data", tmp_path / "cache", tmp_path / "run"
    teacher = ["--model", f"local-dir:{teacher_dir}", "--device", "cpu", "--workers", 0]
    call(
        "robotics", "cache-features", data, "--out", cache, "--episode-keys", tmp_path / "keys.toml", *teacher
    )
    (tmp_path / "keys.toml").unlink()
    quick = [word for setting in SMALL for word in ("--set", setting)]
    call("train", cache, "--data", data, "--out", run, *quick)
    opened = open_trained(run, device="cpu")
    assert isinstance(opened.folder, EpisodeFolder)
    stem = next(part for part in opened.student.modules() if isinstance(part, torch.nn.Conv2d))
    assert stem.in_channels == 3
    assert json.loads(call("evaluate", run, "--device", "cpu", "--json"))["ood_test"]["episodes"] == 12
    call("export", run, "--out", tmp_path / "model")
    info = ModelInfo.load(tmp_path / "model")
    assert (info.bank, info.objects.local, info.objects.negatives["labels"]) == (
        "labels",
        False,
        "negative_labels",
    )
    expected = student_scores(run, "ood_test")[:, np.argsort(opened.folder.split("ood_test").classes)]
    measured = scores_of(tmp_path / "model", data / "val.h5")
    np.testing.assert_allclose(measured, expected, atol=1e-3)
    lines = call("predict", tmp_path / "model", data / "val.h5", "--format", "jsonl").splitlines()
    assert len(lines) == 12
    assert {label["label"] for label in json.loads(lines[0])["labels"]} == {
        "blue bowl",
        "red mug",
        "green plate",
    }


def test_a_model_says_in_which_precision_it_is_no_longer_the_student(model, episodes, tmp_path):
    info = ModelInfo.load(model)
    assert not info.unlike
    assert replace(info, unlike={"int8": 0.5}).warning("int8").startswith("the int8 file does not answer")
