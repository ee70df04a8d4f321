"""A cache of a teacher that reads no texts: no banks, and one line where texts are asked for."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

import cli
from cache import EmbeddingCache
from cache.maintain.verify import verify_cache

CODE = """
import numpy as np
import torch

class Colours:
    def preprocess(self, picture):
        pixels = np.asarray(picture.resize((8, 8)), dtype="float32") / 255
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def embed_images(self, images):
        return torch.cat([images.mean((2, 3)), images.std((2, 3))], dim=1)

class Words(Colours):
    def embed_texts(self, texts):
        return torch.tensor([[len(text), *map(ord, (text + "-----")[-5:])] for text in texts]).float()
"""


@pytest.fixture
def called(tmp_path, photos):
    """A function that runs cache-features with a teacher of that file, and returns what was said."""
    (tmp_path / "mine.py").write_text(CODE)

    def call(name, *words, code=0, command="cache-features"):
        where = ["--out", tmp_path / "cache", "--workers", "0", "--device", "cpu"]
        words = [command, photos, *where, "--model", f"{tmp_path / 'mine.py'}:{name}", *words]
        done = CliRunner().invoke(cli.main, [*map(str, words)])
        assert done.exit_code == code, done.output
        return done.output

    return call


def test_it_has_no_banks_and_says_so(called, tmp_path, photos):
    (photos / "captions.jsonl").write_text('{"key": "train/apple/train_0.jpg", "caption": "an apple"}\n')
    said = called("Colours", "--views", "2", "--support-views", "2")
    assert "reads no texts: text bank labels, text bank descriptions, captions left out" in said
    assert "│ texts" in said
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert (cache.bank_names, cache.embed_dim, len(cache.split("train"))) == ((), 6, 24)
    assert not (tmp_path / "cache" / "texts").exists()
    assert "24 rows" not in called("Colours")  # nothing is new
    assert all(not check.problem for check in verify_cache(tmp_path / "cache"))
    done = CliRunner().invoke(cli.main, ["cache", "info", str(tmp_path / "cache")])
    assert done.exit_code == 0
    assert "text banks: none" in done.output
    assert "code" in done.output


@pytest.mark.parametrize(
    "words",
    [
        ("--template", "a {}"),
        ("--text-file", "some.txt"),
        ("--descriptions", "some.txt"),
        ("--captions", "some.jsonl"),
        ("--neighbours", "2"),
        ("--keep-text-tower",),
    ],
)
def test_what_is_of_texts_is_refused_in_one_line(called, tmp_path, photos, words):
    (tmp_path / "some.txt").write_text((photos / "chatgpt.txt").read_text())
    (tmp_path / "some.jsonl").write_text('{"key": "train/apple/train_0.jpg", "caption": "an apple"}\n')
    words = [tmp_path / word if word.startswith("some") else word for word in words]
    said = called("Colours", *words, code=1)
    assert f"Error: {words[0]} is of texts, and the teacher" in said
    assert not (tmp_path / "cache").exists()


def test_it_goes_beside_one_that_reads_texts_and_another_file_is_another_teacher(called, tmp_path):
    called("Words")
    called("Colours", "--teacher", "colours")
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert cache.bank_names == ("labels", "descriptions")
    assert cache.teacher_cache("colours").bank_names == ()
    file = tmp_path / "mine.py"
    file.write_text(CODE + "# changed\n")
    assert "another make (code: " in called("Words", code=1)
    more = ["cache", "add-texts", tmp_path / "cache", "--bank", "more", "--template", "one {}"]
    add = lambda: CliRunner().invoke(cli.main, [*map(str, [*more, "--model", f"{file}:Words"])])  # noqa: E731
    assert "the weights and the code of" in add().output
    file.write_text(CODE)
    assert add().exit_code == 0
    assert "more" in EmbeddingCache.open(tmp_path / "cache").bank_names


def test_a_name_without_what_it_is_of_is_told_how_to_be_written(tmp_path, photos):
    folder, file = tmp_path / "saved", tmp_path / "mine.py"
    folder.mkdir()
    for model, meant in ((folder, f"give local-dir:{folder}."), (file, f"{file}:NAME.")):
        words = ["cache-features", photos, "--out", tmp_path / "cache", "--model", model]
        done = CliRunner().invoke(cli.main, [*map(str, words)])
        assert (done.exit_code, meant in done.output) == (2, True), done.output


def test_more_texts_of_own_code_ask_for_the_file_again(called, tmp_path):
    called("Words")
    done = CliRunner().invoke(
        cli.main, ["cache", "add-texts", str(tmp_path / "cache"), "--bank", "x", "--template", "one {}"]
    )
    assert "give --model mine.py:Words with where the file is." in done.output.replace(f"{tmp_path}/", "")
    assert done.exit_code == 1
