"""A run whose student is one's own code, is fed its own way and is judged at another size and crop."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from conftest import make_cache, make_photos
from PIL import Image

import cli
from cache.runtime.errors import CacheMismatch, UserError
from cache.runtime.own_code import OwnCode
from distill.checkpoint import read_checkpoint
from distill.config import RunConfig
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.model import Model
from distill.fewshot.run import FewShotOptions, few_shot
from distill.judge.open_run import evaluate_run, open_trained
from distill.settings import with_settings
from distill.student.build import Origin, build_student
from distill.sweep.plan import load_sweep
from distill.sweep.run import Place, train_command
from distill.sweep.together import groups_of
from distill.train.session import open_session
from distill.train.start import train

NET = """
from pathlib import Path
from torch import nn

Path("ran").write_text("")

class Net(nn.Module):
    mean, std = (0.1, 0.2, 0.3), (0.5, 1.0, 2.0)

    def __init__(self, embed_dim, width=4):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=4)
        self.head = nn.Linear(width, embed_dim)

    def forward(self, x):
        return self.head(self.stem(x).relu().mean(dim=(2, 3)))

def broken(embed_dim):
    return undefined
"""
SMALL = [
    "student.image_size=32", "train.epochs=1", "train.batch_size=6", "train.device=cpu", "data.workers=0",
    "loss.mse=1", "train.precision=float32", "data.decoder=pillow",
]  # fmt: skip
JUDGED = ["student.eval_size=48", "student.eval_crop=1"]


def config(*settings):
    return with_settings(RunConfig(), [*SMALL, *settings])


def called(*words):
    return CliRunner().invoke(cli.main, [*map(str, words)])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with photos, a cache, a student's code and a run of it, which the command began; to be read."""
    root = tmp_path_factory.mktemp("own")
    make_cache(root / "cache", make_photos(root / "photos"))
    (root / "net.py").write_text(NET.replace('"ran"', f"{str(root / 'ran')!r}"))
    settings = [
        word for setting in [*SMALL, *JUDGED, 'student.kwargs=["width=6"]'] for word in ("--set", setting)
    ]
    (root / "plain.toml").write_text("")
    where = ["--data", root / "photos", "--out", root / "run", "--recipe", root / "plain.toml"]
    ended = called("train", root / "cache", *where, "--arch", f"{root / 'net.py'}:Net", *settings)
    assert ended.exit_code == 0, ended.output
    (root / "ran").unlink()
    return root


def test_a_run_keeps_the_sha256_of_its_code_and_nothing_of_it(made):
    state = read_checkpoint(made / "run" / "last.pt")
    assert len(state["code"]) == 64
    assert 'arch = "net.py:Net"' in state["config"]
    assert str(made / "net.py") not in (made / "run" / "last.pt").read_bytes().decode("latin1")
    assert state["input"] == {"mean": [0.1, 0.2, 0.3], "std": [0.5, 1.0, 2.0]}
    assert state["student"]["stem.weight"].shape[0] == 6


def test_code_is_run_only_where_the_command_names_it_and_only_as_it_was(made, tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("distill_own_code_")]:
        monkeypatch.delitem(sys.modules, name)  # as in another process
    (tmp_path / "net.py").write_text((made / "net.py").read_text() + "\n")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f'[student]\narch = "{made / "net.py"}:Net"\n')
    train_words = ["train", made / "cache", "--data", made / "photos", "--out", tmp_path / "out"]
    for words in (
        ["evaluate", made / "run"],
        ["fewshot", made / "run"],
        ["export", made / "run", "--out", tmp_path / "model"],
        [*train_words, "--recipe", recipe],
    ):
        ended = called(*words)
        assert ended.exit_code == 1
        assert "which is run only where the command names it. Fix: give that file: --code" in ended.output, (
            words
        )
    assert not (made / "ran").exists()
    with pytest.raises(CacheMismatch, match=r"net\.py is not the code that .*run was trained with \(sha256"):
        evaluate_run(made / "run", code=tmp_path / "net.py", device="cpu")
    again = {
        "cache_dir": made / "cache",
        "data_dir": made / "photos",
        "out": made / "run",
        "resume_run": True,
    }
    own = config("student.arch=net.py:Net", 'student.kwargs=["width=6"]', *JUDGED)
    with pytest.raises(CacheMismatch, match="is not the code"):
        train(own, **again, code=tmp_path / "net.py")
    assert not (made / "ran").exists()
    assert train(own, **again, code=made / "net.py")["first_weights"] == {"start": "scratch", "sha256": ""}
    words = [*train_words, "--recipe", "small", "--code", made / "net.py"]
    ended = called(*words, "--set", "student.arch=resnet18")
    assert "is of students of one's own, and this one is resnet18" in ended.output


def test_the_run_is_judged_fewshot_and_exported_with_its_code(made, tmp_path):
    code = made / "net.py"
    judged = evaluate_run(made / "run", code=code, device="cpu")
    summary = json.loads((made / "run" / "summary.json").read_text())
    assert judged["ood_test"].accuracy == pytest.approx(summary["ood_test_accuracy"])
    assert summary["student_input"] == {"mean": [0.1, 0.2, 0.3], "std": [0.5, 1.0, 2.0]}
    options = FewShotOptions(shots=(1,), settings=("train.epochs=1",), device="cpu")
    few_shot(made / "run", tmp_path / "few", options, code=code)
    few = read_checkpoint(tmp_path / "few" / "shots-1" / "last.pt")
    assert few["input"] == read_checkpoint(made / "run" / "last.pt")["input"]
    info = export_run(
        made / "run", tmp_path / "model", ExportOptions(formats=("onnx", "safetensors"), code=code)
    )
    steps = info.preprocessing
    assert (steps.resize, steps.crop, steps.mean, steps.std) == (48, 48, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))
    model, opened = Model.open(tmp_path / "model"), open_trained(made / "run", code=code, device="cpu")
    photo = next((made / "photos" / "val").glob("*/*.jpg"))
    squashed = np.array(Image.open(photo).convert("RGB").resize((48, 48), Image.Resampling.BILINEAR))
    pixels = (torch.from_numpy(squashed) / 255 - torch.tensor(steps.mean)) / torch.tensor(steps.std)
    with torch.no_grad():
        expected = torch.nn.functional.normalize(opened.student(pixels.permute(2, 0, 1)[None]), dim=1).numpy()
    np.testing.assert_allclose(model.embed(model.prepare_file(photo.read_bytes())[None]), expected, atol=1e-5)


def test_another_size_and_crop_are_judged_on_request_and_named(made):
    ended = called("evaluate", made / "run", "--code", made / "net.py", "--eval-size", 32, "--eval-crop", 0.5)
    assert "(at 32 px, the middle 0.5 of the side)" in ended.output
    words = ["--code", made / "net.py", "--eval-size", 32, "--split", "ood_test", "--json"]
    assert json.loads(called("evaluate", made / "run", *words).output)["ood_test"]["eval_size"] == 32
    one, other = (
        open_trained(made / "run", code=made / "net.py", device="cpu", eval_size=size).judged(["ood_test"])[0]
        for size in (None, 32)
    )
    assert [split.pixels.decode.side for split in (one, other)] == [48, 32]


def test_a_run_and_exported_weights_are_a_start_for_another(made, tmp_path):
    begun = {"cache_dir": made / "cache", "data_dir": made / "photos"}
    first = config("student.arch=timm:test_resnet")
    train(first, **begun, out=tmp_path / "first")
    export_run(tmp_path / "first", tmp_path / "model", ExportOptions(formats=("safetensors",)))
    state = read_checkpoint(tmp_path / "first" / "last.pt")
    for path in (tmp_path / "first" / "last.pt", tmp_path / "model" / "model.safetensors"):
        session = open_session(config("student.arch=timm:test_resnet", f"student.start={path}"), **begun)
        weights = session.model.student.state_dict()
        assert all(torch.equal(weights[name], value) for name, value in state["student"].items())
        assert session.model.augment.normalisation.mean == (0.5, 0.5, 0.5)


def test_a_run_that_goes_on_needs_its_first_weights_no_more(made, tmp_path):
    first = tmp_path / "first.pt"
    torch.save(build_student("timm:test_resnet", embed_dim=5).state_dict(), first)
    own = config("student.arch=timm:test_resnet", f"student.start={first}")
    where = {"cache_dir": made / "cache", "data_dir": made / "photos", "out": tmp_path / "run"}
    begun = train(own, **where)
    assert begun["first_weights"]["start"] == str(first)
    first.unlink()
    assert train(own, **where, resume_run=True)["first_weights"] == begun["first_weights"]


def test_a_sweep_gives_its_code_to_the_runs_that_need_it(made, tmp_path):
    path = tmp_path / "sweep.toml"
    path.write_text(
        "[[runs]]\nname = 'own'\nstudent.arch = 'there/net.py:Net'\n[[runs]]\nname = 'half'\nstudent.arch = 'timm:test_resnet'\n"
        "[[runs]]\nname = 'imagenet'\nstudent.arch = 'resnet18'\n"
        "[[runs]]\nname = 'same'\nstudent.arch = 'mobilenet_v2'\n"
    )
    sweep = load_sweep(path)
    place = Place(cache=made / "cache", data=made / "photos", out=tmp_path / "out", code=made / "net.py")
    # As a run keeps it, so that the same command goes on: a folder is the command's affair.
    assert sweep.runs[0].config.student.arch == "net.py:Net"
    given = {run.point: "--code" in train_command(run, place) for run in sweep.runs}
    assert given == {"own": True, "half": False, "imagenet": False, "same": False}
    # Students that are fed alike share a stream of batches.
    assert [len(group) for group in groups_of(sweep.runs)] == [1, 1, 2]


def test_code_that_fails_is_one_line_with_its_place(made, tmp_path):
    begun = {"cache_dir": made / "cache", "data_dir": made / "photos", "out": tmp_path / "out"}
    for name, message in (("broken", r"NameError: .*'undefined'.*, line 19"), ("Nett", "did you mean 'Net'")):
        with pytest.raises(UserError, match=message):
            train(config(f"student.arch=net.py:{name}"), **begun, code=made / "net.py")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("def student(size):\n    return nn.Linear(size, size, depth=3)", "unexpected keyword.*, line 3"),
        (
            "class student(nn.Module):\n    def __init__(self, size):\n        super().__init__()\n"
            "    def forward(self, images):\n        return self.layer(images)",
            r"cannot take 32 px images \(AttributeError.*, line 6",
        ),
    ],
)
def test_code_that_fails_when_it_is_built_or_first_used_is_one_line_with_its_place(body, message, tmp_path):
    (tmp_path / "own.py").write_text(f"from torch import nn\n{body}\n")
    origin = Origin(code=OwnCode.read(tmp_path / "own.py"))
    with pytest.raises(UserError, match=message):
        build_student("own.py:student", embed_dim=3, image_size=32, origin=origin)
