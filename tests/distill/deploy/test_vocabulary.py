"""The vocabulary of a shipped model: kept small, by the teacher's text tower, and asked without a teacher."""

from __future__ import annotations

import json
import re
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT
from helpers.exported import invoke, val_photos
from helpers.services import running

from cache.runtime.errors import UserError
from distill.deploy.class_sets import unit
from distill.deploy.model import Model
from distill.deploy.vocabulary import LICENSE, ROWS, WORDS, Vocabulary, all_codes, compressed, restored
from distill.deploy.vocabulary_rows import SHIPPED_LICENSE, SHIPPED_WORDS

SCRIPT = ROOT / "scripts" / "make_vocabulary.py"


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """Unit rows [300, 64] near a common mean, as texts have them."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20, 64)) * np.linspace(1, 0.1, 20)[:, None]
    return unit(rng.normal(size=64) * 2 + rng.normal(size=(300, 20)) @ directions)


@pytest.fixture(scope="module")
def named(tmp_path_factory, trained) -> Path:
    """An exported model that can name four words, and its own classes."""
    folder = tmp_path_factory.mktemp("named")
    words = folder / "words.txt"
    words.write_text("zebra\nLemon\n  fire  engine\n\nlemon\ngranny smith\n")
    ended = invoke("export", trained / "run", "--out", folder / "model", "--vocabulary", words)
    assert ended.exit_code == 0, ended.output
    return folder / "model"


def test_a_vocabulary_comes_back_as_it_was_but_for_8_bits(rows, tmp_path):
    words = tuple(f"word {i}" for i in range(300))
    Vocabulary(words=words, rows=rows).save(tmp_path, components=64)
    again = Vocabulary.load(tmp_path, embed_dim=64)
    assert again.words == words
    assert (again.rows * rows).sum(axis=1).min() > 0.99
    np.testing.assert_allclose(np.linalg.norm(again.rows, axis=1), 1, atol=0.01)
    assert Vocabulary.load(tmp_path / "nothing") is None


def test_fewer_axes_keep_what_most_differs(rows):
    arrays = compressed(rows, components=16)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    _, _, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs((unit(arrays["basis"]) * axes[:16]).sum(axis=1)), 1, atol=1e-3)
    assert (arrays["codes"].shape, arrays["codes"].dtype) == ((300, 16), np.int8)
    assert (np.abs(arrays["codes"].astype(int)).max(axis=0) == 127).all()


@pytest.mark.parametrize(("components", "kept"), [(8, (8, 0)), (33, (33, 0)), (43, (33, 5)), (64, (32, 16))])
def test_axes_along_which_words_differ_little_take_half_a_byte(rows, components, kept):
    arrays = compressed(rows, components=components)
    assert (arrays["codes"].shape[1], arrays["short"].shape[1]) == kept
    (a, b), codes = kept, all_codes(arrays)
    assert codes.shape == (300, a + 2 * b)
    assert (codes[:, a:].min(initial=0), codes[:, a:].max(initial=0)) in ((0, 0), (-8, 7))


def test_what_images_see_of_words_is_kept_first(rows):
    # Images of a few directions, all far from those in which words differ most.
    rng = np.random.default_rng(1)
    images = unit(rng.normal(size=64) + rng.normal(size=(500, 6)) @ rng.normal(size=(6, 64)))

    def error(of_images):
        kept = restored(compressed(rows, images=of_images, components=8))
        return np.square(images @ (kept - rows).T).mean()

    assert error(images) < error(None) / 3


@pytest.mark.parametrize("damage", ["words", "rows", "size", "one missing"])
def test_a_damaged_vocabulary_is_told_of(rows, tmp_path, damage):
    Vocabulary(words=tuple(map(str, range(300))), rows=rows).save(tmp_path)
    if damage == "words":
        (tmp_path / WORDS).write_text("other\n" * 300)
    elif damage == "rows":
        (tmp_path / ROWS).write_bytes((tmp_path / ROWS).read_bytes()[:-9])
    elif damage == "one missing":
        (tmp_path / ROWS).unlink()
    with pytest.raises(UserError, match=r"vocabulary .* is damaged"):
        Vocabulary.load(tmp_path, embed_dim=32 if damage == "size" else 64)


def test_words_are_the_texts_that_the_tower_would_add(named, trained, tmp_path):
    model = Model.open(named)
    words = model.vocabulary.words
    # The model's own labels are among them, each word once.
    assert words[:4] == ("zebra", "Lemon", "fire engine", "granny smith")
    bank = model.banks[model.info.bank]
    own = {bank.labels[bank.classes.index(name)] for name in model.info.id_classes}
    assert {*words[4:]} == own - {"lemon", "granny smith"}
    assert model.info.vocabulary == len(words)
    added = invoke("texts", named, "--add", "zebra", "--cache", trained / "cache", "--bank", "exact")
    assert added.exit_code == 0, added.output
    exact = Model.open(named).class_set(bank="exact").embeddings[0]
    assert exact @ model.vocabulary.rows[0] > 0.99
    listed = invoke("texts", named)
    assert f"vocabulary: {len(words)} words" in listed.output


def test_an_image_is_named_without_candidates_and_by_any_word(named, trained, tmp_path):
    photo = val_photos(trained)[0]
    told = json.loads(invoke("predict", named, photo, "--open", "--top", "3", "--format", "jsonl").stdout)
    assert len(told["labels"]) == 3
    model = Model.open(named)
    image = model.embed(model.prepare_file(photo.read_bytes())[None])
    best = int((image @ model.vocabulary.rows.T).argmax())
    assert told["answer"] == model.vocabulary.words[best]
    names = tmp_path / "names.txt"
    names.write_text("zebra\nfire engine\nlemon\n")
    for given in ("zebra,Fire_Engine,lemon", names, f"@{names}"):
        ended = invoke("predict", named, photo, "--names", given, "--format", "jsonl")
        labels = {one["label"]: one for one in json.loads(ended.stdout)["labels"]}
        # A label of a text bank comes before the word of the vocabulary.
        assert labels.keys() == {"zebra", "fire engine", "lemon"}
        assert labels["lemon"]["class_name"]
    with running(model) as ask:
        raw = photo.read_bytes()
        answer = ask("/predict?open=true&top=3", raw)[1]
        assert [one["label"] for one in answer["labels"]] == [one["label"] for one in told["labels"]]
        assert ask("/labels")[1]["vocabulary"] == len(model.vocabulary)
        status, answer = ask("/predict?open=true&names=zebra", raw)
        assert (status, "leave names" in answer["error"]) == (422, True)


def test_wrong_words_are_told_in_one_line(named, plain, trained, tmp_path):
    photo, empty = val_photos(trained)[0], tmp_path / "empty.txt"
    empty.write_text("\n")
    out = ("--out", tmp_path / "model")
    for words, code, message in (
        (("predict", named, photo, "--names", "zebbra"), 1, "did you mean 'zebra'"),
        (("predict", plain, photo, "--open"), 1, "has no vocabulary"),
        (("predict", named, photo, "--open", "--reject"), 2, "leave --reject out"),
        (("predict", named, photo, "--names", "no.txt"), 2, "no.txt cannot be read"),
        (("export", trained / "run", *out, "--vocabulary", empty), 1, "has no word"),
        (("export", trained / "run", *out, "--vocabulary", tmp_path / "no.txt"), 1, "cannot be read"),
        (("export", trained / "run", *out, "--teacher-model", "x"), 2, "is of --vocabulary"),
    ):
        ended = invoke(*words)
        assert (ended.exit_code, message in ended.output) == (code, True), ended.output


def test_the_shipped_words_are_20_000_each_once_none_rude_under_their_licence():
    words = SHIPPED_WORDS.read_text().splitlines()
    folded = {re.sub("[^a-z]", "", word.casefold()) for word in words}
    assert (len(words), len(folded)) == (20_000, 20_000)
    assert {"dog", "bicycle", "banana", "tulip", "firefighter"} <= {*words}
    rude = set(re.search(r'RUDE_HASHES = """(.*?)"""', SCRIPT.read_text(), re.DOTALL)[1].split())
    assert len(rude) > 50
    parts = {part for word in words for part in re.split(r"[ '.-]+", word.lower())}
    parts |= {part.removesuffix("s") for part in parts}
    assert not {sha256(part.encode()).hexdigest()[:8] for part in parts} & rude
    assert "Princeton University" in SHIPPED_LICENSE.read_text()
    assert LICENSE != WORDS
