"""What a plain install says of teachers that take the extra ``siglip``, in processes that cannot import it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from conftest import ROOT
from helpers.kept_towers import save_with_tokenizer
from helpers.processes import python

from cache.teacher.load import load_teacher
from cache.teacher.text_tower import save_text_tower

# Where an import of a package is no longer possible, each teacher in turn, and what is said of it.
CODE = """
import sys
from pathlib import Path
for name in [name for name in sys.modules if name.partition(".")[0] == sys.argv[1]]:
    del sys.modules[name]  # of the process that this one is a fork of
class Without:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            return None
        return self.finder.find_spec(name, path, target)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = map(Without, sys.meta_path)
from cache.runtime.errors import UserError
from cache.store.manifest_lines import ListedFile
from cache.teacher.load import load_teacher
from cache.teacher.text_tower import TextTower
for words in sys.argv[2:]:
    model, _, pretrained = words.partition("@")
    try:
        if pretrained == "kept":
            files = [ListedFile.of(Path(model), f"text_tower/{f.name}") for f in Path(model, "text_tower").iterdir()]
            TextTower.load(Path(model), files=files)
        else:
            load_teacher(model, pretrained=pretrained or None)
        print("loaded", flush=True)
    except UserError as error:
        print(error, flush=True)
"""


def said(package: str, *models: str, by: Sequence[str | Path] = ()) -> list[str]:
    command = [*(by or python()), "-c", CODE, package, *models]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_without_transformers_each_way_in_is_one_line_that_says_what_to_install(tmp_path):
    clip, open_clip = (save_with_tokenizer(kind, tmp_path / kind) for kind in ("clip", "open_clip"))
    save_text_tower(tmp_path, load_teacher(f"local-dir:{clip}").text_side().kept())
    lines = said(
        "transformers",
        f"local-dir:{clip}",
        f"local-dir:{open_clip}",
        f"{tmp_path}@kept",
        "ViT-B-16-SigLIP@webli",
    )
    assert len(lines) == 4
    for line, what in zip(
        lines, ("the model", "the tokenizer", "the text tower", "the tokenizer"), strict=True
    ):
        assert line.startswith(f"transformers, which {what} ")
        assert """pip install ".[siglip]\"""" in line


def test_without_sentencepiece_a_siglip_that_reads_by_it_says_so(tmp_path):
    pytest.importorskip("transformers")
    folders = []
    for called in ("SiglipTokenizer", None):
        folder = save_with_tokenizer("siglip", tmp_path / f"siglip-{called}")
        (folder / "spiece.model").write_bytes(b"a vocabulary of sentencepiece's")
        told = json.loads((folder / "tokenizer_config.json").read_text()) | {"tokenizer_class": called}
        (folder / "tokenizer_config.json").write_text(json.dumps(told))
        folders.append(f"local-dir:{folder}")
    # A new process: transformers looks once, when it is imported, what there is.
    lines = said("sentencepiece", *folders, by=[sys.executable])
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("sentencepiece, which the tokenizer in ")
        assert "siglip" in line
