"""The folder that a command is called in: nothing of it is imported, and no library's advice is told."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from helpers.exported import invoke

from cache.runtime.errors import reason_of


def write_foreign_modules(here, *names):
    for name in names:
        (here / f"{name}.py").write_text(f"open({str(here / 'marker')!r}, 'a').write('ran')\n")


@pytest.mark.long
def test_children_import_nothing_from_the_working_folder(here, cached, photos):
    write_foreign_modules(here, "cli", "cache", "distill", "queue", "torch", "random")
    (here / "matplotlibrc").write_text("text.usetex: True\nbackend: module://queue\n")
    (here / "s.toml").write_text(
        'recipe = "smoke"\nseeds = [0]\n[base]\nstudent.arch = "timm:test_resnet"\nstudent.image_size = 32\n'
        'train.epochs = 1\ntrain.device = "cpu"\ndata.workers = 2\n'
    )
    ended = invoke("sweep", "s.toml", "--cache", cached.path, "--data", photos, "--out", "runs", "--json")
    assert [run["status"] for run in json.loads(ended.stdout)] == ["finished"], ended.output
    assert not (here / "marker").exists()


def test_the_program_keeps_its_working_folder_off_the_path_of_every_python_that_it_starts(here):
    write_foreign_modules(here, "queue", "random")
    code = (
        "import cli, subprocess, sys\n"
        "@cli.main.command('probe')\n"
        "def probe():\n"
        "    subprocess.run([sys.executable, '-c', 'import queue, random, sys; print(sys.path)'])\n"
        "cli.main(['probe'])\n"
    )
    # Its own "-P" is not handed on.
    command = [sys.executable, "-P", "-c", code]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "''" not in printed
    assert str(here) not in printed
    assert not (here / "marker").exists()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "Weights only load failed... (1) set `weights_only=False`\nGLOBAL os.system was not",
            "it holds os.system, which is code",
        ),
        (
            "Please pass the argument `trust_remote_code=True` to allow it",
            "it holds more than numbers and names",
        ),
        ("Object arrays cannot be loaded when allow_pickle=False", "it holds more than numbers and names"),
        (
            "Exceeds the limit (4300 digits) for integer string conversion; use sys.set_int_max_str_digits() to",
            "Exceeds the limit (4300 digits) for integer string conversion",
        ),
        ("\n first \n second", "first"),
        ("Error(s) in loading:\n\tMissing key(s): a\n", "Error(s) in loading: Missing key(s): a"),
        ("", "ValueError"),
    ],
)
def test_what_a_library_says_is_told_without_its_advice(text, told):
    assert reason_of(ValueError(text)) == told
