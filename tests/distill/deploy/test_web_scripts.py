"""What a page computes is what Python computes: pixels, scores, names. Its scripts are run by Node."""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from dataclasses import asdict
from pathlib import Path

import numpy as np
import PIL
import pytest
import torch
from helpers.browsers import by_node
from PIL import Image

import distill.deploy
from cache.runtime.errors import UserError
from cache.sources.resizing import resized
from distill.deploy.class_sets import ClassSet, names_in, pick, unit
from distill.deploy.vocabulary import Vocabulary
from distill.judge.rejection import Threshold, least_odds, mcm_odds, neglabel_odds

SCRIPTS = Path(distill.deploy.__file__).parent / "templates" / "web"
SIZES = [(64, 50), (300, 401), (37, 129), (500, 70), (70, 500), (1, 1), (2, 700), (640, 479), (112, 112)]


def squashed(pictures, side, *, by_torch):
    """The pictures squashed by the page's script."""
    given = [[*one.size, b64encode(one.convert("RGBA").tobytes()).decode()] for one in pictures]
    expression = f"""given.map(([width, height, pixels]) => {{
        const all = Buffer.from(pixels, "base64");
        const rowsAt = (top, count) => all.subarray(4 * top * width, 4 * (top + count) * width);
        const found = squashed(rowsAt, width, height, {side}, {str(by_torch).lower()});
        return Buffer.from(found).toString("base64");
    }})"""
    found = by_node([SCRIPTS / "picture.js"], expression, given)
    return [np.frombuffer(b64decode(one), np.uint8).reshape(side, side, 3) for one in found]


def test_a_page_squashes_photos_as_pillow_and_torch_do():
    side, rng = 64, np.random.default_rng(0)
    pixels = [rng.integers(0, 256, (height, width, 3), dtype=np.uint8) for width, height in SIZES]
    pictures = [Image.fromarray(one) for one in pixels]
    for picture, found in zip(pictures, squashed(pictures, side, by_torch=False), strict=True):
        away = np.abs(found.astype(int) - np.asarray(resized(picture, side, side, Image.Resampling.BILINEAR)))
        # Which way comes first, and so what is rounded first, is this release's choice.
        assert away.max() <= (0 if int(PIL.__version__.split(".")[0]) >= 13 else 2), picture.size
    for one, found in zip(pixels, squashed(pictures, side, by_torch=True), strict=True):
        given = torch.from_numpy(one).permute(2, 0, 1)[None]
        by_torch = torch.nn.functional.interpolate(given, size=(side, side), mode="bilinear", antialias=True)
        assert np.abs(found.astype(int) - by_torch[0].permute(1, 2, 0).numpy()).max() <= 1, one.shape


def test_probabilities_are_those_of_the_formula_in_float64():
    cosines = np.random.default_rng(0).uniform(-0.2, 0.4, 7)
    found = by_node([SCRIPTS / "scores.js"], "softmax(given, 0.02)", cosines.tolist())
    shares = np.exp(cosines / 0.02) / np.exp(cosines / 0.02).sum()
    np.testing.assert_allclose(found, shares, rtol=1e-12)


def test_none_of_these_is_decided_by_pythons_odds_and_threshold():
    rng = np.random.default_rng(0)
    names, negatives = rng.uniform(-0.2, 0.4, (2, 7)), rng.uniform(-0.2, 0.3, (2, 40))
    thresholds = tuple(Threshold(names=n, least=least) for n, least in ((2, 1.5), (5, 0.5), (50, -3.0)))
    numbers = (1, 2, 3, 5, 20, 50, 900)
    given = {
        "names": names.tolist(),
        "negatives": negatives.tolist(),
        "thresholds": [asdict(one) for one in thresholds],
        "numbers": numbers,
    }
    expression = """({
        neglabel: given.names.map((row, i) => neglabelOdds(row, given.negatives[i], 0.01)),
        mcm: given.names.map(row => mcmOdds(row, 0.02)),
        one: String(mcmOdds([0.3], 0.02)),
        least: given.numbers.map(number => leastOdds(given.thresholds, number)),
    })"""
    found = by_node([SCRIPTS / "scores.js", SCRIPTS / "rejection.js"], expression, given)
    np.testing.assert_allclose(found["neglabel"], neglabel_odds(names, negatives, 0.01), rtol=1e-9)
    np.testing.assert_allclose(found["mcm"], mcm_odds(names, 0.02), rtol=1e-9)
    assert found["one"] == "Infinity"
    np.testing.assert_allclose(found["least"], [least_odds(thresholds, number) for number in numbers])


def test_words_are_as_near_as_their_rows_and_the_farthest_are_found(tmp_path):
    from safetensors.numpy import load_file

    rng = np.random.default_rng(0)
    Vocabulary(words=tuple(f"word {i}" for i in range(50)), rows=unit(rng.normal(size=(50, 48)))).save(
        tmp_path, components=40
    )
    rows = Vocabulary.load(tmp_path).rows
    arrays = load_file(tmp_path / "vocabulary.safetensors")
    assert arrays["short"].shape == (50, 4)
    asked = unit(rng.normal(size=(3, 48)))
    given = {
        "words": [f"word {i}" for i in range(50)],
        "arrays": {name: array.ravel().tolist() for name, array in arrays.items()},
        "asked": asked.tolist(),
    }
    expression = """(() => {
        const words = new Vocabulary(given.words, given.arrays), rows = given.asked;
        return {cosines: Array.from(words.cosines(rows[0])), row: Array.from(words.row(7)),
                far: farFrom(rows, words, 5), nearest: largest(words.cosines(rows[0]), 3)};
    })()"""
    found = by_node([SCRIPTS / "scores.js", SCRIPTS / "rejection.js"], expression, given)
    np.testing.assert_allclose(found["cosines"], rows @ asked[0], atol=1e-6)
    np.testing.assert_allclose(found["row"], rows[7], atol=1e-6)
    np.testing.assert_array_equal(found["far"], np.argsort((rows @ asked.T).max(axis=1))[:5])
    np.testing.assert_array_equal(found["nearest"], np.argsort(-(rows @ asked[0]))[:3])


def test_names_that_are_typed_are_found_as_the_command_finds_them():
    labels = ("bell pepper, red", "plum", "Granny Smith", "rose", "common primrose")
    bank = ClassSet(
        labels=labels, classes=("", "p_lum", "", "", ""), texts=labels, embeddings=np.eye(5, dtype=np.float32)
    )
    typed = [
        "plum, rose",
        "bell pepper, red",
        '"bell pepper, red",PLUM',
        "p lum\n granny_smith ",
        "rose,,plum,",
    ]
    made = """(() => {
        const bank = {labels: given.labels, classes: given.classes, texts: given.labels, row: place => place};
        bank.places = placesOf(bank);
        return given.typed.map(text => asked(text, [bank]));
    })()"""
    wrong = ["plumm", "primrose", "rose, rose", "zzzz", "plum, p_lum"]
    given = {"labels": labels, "classes": bank.classes, "typed": [*typed, *wrong]}
    found = by_node([SCRIPTS / "names.js"], made, given)
    for text, answer in zip(typed, found, strict=False):
        wanted = pick({"labels": bank}, names_in(text.split("\n"), {"labels": bank}))
        assert [one["label"] for one in answer["classes"]] == list(wanted.labels), text
    assert [answer.get("near") for answer in found[len(typed) :]] == [
        ["plum"],
        ["common primrose", "rose"],
        [],
        [],
        [],
    ]
    for text, answer in zip(wrong, found[len(typed) :], strict=True):
        with pytest.raises(UserError):
            pick({"labels": bank}, names_in([text], {"labels": bank}))
        assert "wrong" in answer


def test_no_script_or_style_of_a_page_names_another_place():
    for path in SCRIPTS.glob("*.*"):
        assert not re.search(r"https?://|//cdn|innerHTML|insertAdjacentHTML|eval\(", path.read_text()), path
    page = (SCRIPTS / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="([^"]*)"', page)
    written = {"model.js", "vocabulary.js", "weights.js", "onnxruntime.js", "runtime.js", "data:,"}
    assert {name for name in loaded if not (SCRIPTS / name).is_file()} == written
    assert "connect-src 'none'" in page
