"""What is wrong with what was given is said before torch is imported, which takes seconds."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from conftest import ROOT

HEAVY = ("torch", "torchvision", "open_clip", "timm", "transformers", "torchmetrics")
# Says of each command line how it ended, and which heavy libraries were imported until then.
CODE = """
import contextlib, io, json, sys
import cli
for words in json.load(sys.stdin):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        try:
            cli.main(words, standalone_mode=True)
            status = 0
        except SystemExit as ended:
            status = ended.code
    sys.stdout.write(json.dumps([status, said.getvalue(), [name for name in HEAVY if name in sys.modules]]) + "\\n")
"""
TEACHER = ["--model", "local-dir:nowhere"]
WRONG = [
    (["cache-features", "nowhere", "--out", "new", *TEACHER], "nowhere does not exist"),
    (["cache-features", "empty", "--out", "new", *TEACHER], "holds no picture"),
    (["cache-features", "photos", "--out", "photos", *TEACHER], "is not a cache"),
    (["cache-features", "photos", "--out", "new", *TEACHER], "nowhere does not exist"),
    (
        [
            "cache-features",
            "photos",
            "--out",
            "new",
            "--model",
            "ViT-L-14-quickgleu",
            "--pretrained",
            "openai",
        ],
        "'ViT-L-14-quickgelu'",
    ),
    (["cache-features", "photos", "--out", "new", "--modle", "x"], "No such option"),
    (["adapt", "nowhere", "--names", "names.txt", "--out", "new"], "nowhere"),
    (["caption", "nowhere", "--model", "x"], "nowhere does not exist"),
    (["train", "nowhere", "--out", "new"], "does not exist"),
    (["train", "empty", "--out", "new"], "is not a cache"),
    (["train", "empty", "--out", "new", "--recipe", "smal"], "no recipe is called"),
    (["train", "empty", "--out", "new", "--recipe", "mine.toml"], "the recipe mine.toml does not exist"),
    (["train", "empty", "--out", "new", "--recipe", "small", "--set", "optim.lrr=1"], "optim.lrr"),
    (["train", "--resume", "--out", "empty"], "holds no run to resume"),
    (["evaluate", "empty"], "there is no checkpoint"),
    (["fewshot", "empty"], "there is no checkpoint"),
    (["export", "empty", "--out", "new"], "there is no checkpoint"),
    (["sweep", "losses", "--cache", "empty", "--out", "new"], "is not a cache"),
    (["report", "empty", "--out", "page.html"], "config.toml"),
    (["predict", "empty", "photo.jpg"], "no model.json"),
    (["embed", "empty", "photos", "--out", "rows.npy"], "no exported model"),
    (["cache", "convert", "empty", "--to", "webdataset", "--out", "new"], "is not a cache"),
    (["cache", "add-texts", "empty", "--bank", "one", "--template", "{}"], "is not a cache"),
    (["cache", "verify", "empty"], "is not a cache"),
]


@pytest.fixture(scope="module")
def ends(tmp_path_factory, drawn_photos):
    here = tmp_path_factory.mktemp("here")
    (here / "empty").mkdir()
    (here / "names.txt").write_text("apple\nlemon\n")
    (here / "photos").symlink_to(drawn_photos)
    done = subprocess.run(
        [sys.executable, "-P", "-c", f"HEAVY = {HEAVY}{CODE}"],
        input=json.dumps([words for words, _ in WRONG]),
        capture_output=True,
        text=True,
        cwd=here,
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        check=True,
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("number", range(len(WRONG)), ids=[" ".join(words) for words, _ in WRONG])
def test_what_is_wrong_is_said_before_a_heavy_library_is_imported(number, ends):
    status, said, imported = ends[number]
    assert status in (1, 2)
    assert WRONG[number][1] in said
    assert imported == []


def test_windows_is_sent_to_wsl_before_anything_is_imported():
    code = "import sys; sys.platform = 'win32'; import cli"
    ended = subprocess.run([sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert ended.returncode == 1
    assert (
        ended.stderr
        == "Error: distill does not run on Windows itself. Fix: run 'wsl --install', and install it in there.\n"
    )
