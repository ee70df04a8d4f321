"""None of these, of an exported model: with a vocabulary and without, of names that were never trained on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import ID_CLASSES, write_image
from helpers.exported import image_files, invoke, val_photos

from cache.sources.decoding import load_rgb
from distill.deploy.check import Choices
from distill.deploy.check_reject import RejectCheck
from distill.deploy.export import export_run
from distill.deploy.export_options import ExportOptions
from distill.deploy.info import ModelInfo
from distill.deploy.model import Model
from distill.deploy.vocabulary_rows import VocabularySource
from distill.judge.calibration import Compared
from distill.judge.rejection import far_from, least_odds, neglabel_odds
from distill.student.classifier import AllClasses

WORDS = [
    f"{colour} {thing}" for colour in ("red", "old", "wet") for thing in ("car", "dog", "sea", "hat", "fog")
]


@pytest.fixture(scope="module")
def judging(trained, tmp_path_factory):
    """A model with a vocabulary, measured on pictures of something else too; to be read."""
    root = tmp_path_factory.mktemp("judging")
    rng = np.random.default_rng(0)
    for i in range(5):
        write_image(root / "noise" / f"{i}.png", (rng.integers(256), 0, 255), rng)
    (root / "words.txt").write_text("\n".join(WORDS))
    options = ExportOptions(
        nearest_images=0,
        vocabulary=VocabularySource(words=root / "words.txt"),
        unknowns=(f"pool={root / 'noise'}",),
    )
    export_run(trained / "run", root / "model", options)
    return root / "model"


def test_a_model_with_a_vocabulary_rejects_by_its_words_that_are_far_from_the_names(trained, judging):
    model = Model.open(judging)
    reject = model.info.reject["float32"]
    assert (reject.score, reject.unknown["noise"].images) == ("neglabel", 5)
    photos = [*image_files(trained / "photos" / "val_on_train"), *val_photos(trained)]
    rows = np.concatenate([model.embed(model.prepare(load_rgb(photo))[None]) for photo in photos])
    # The ID classes, others beside, and words that nothing was trained on.
    for names in (ID_CLASSES, ("apple", "lemon"), ("wet dog", "old car", "red hat", "plum")):
        classes = model.class_set(names=names)
        words = model.vocabulary.rows
        negatives = words[far_from(classes.embeddings, words, count=min(round(0.9 * 18), 18 - len(names)))]
        odds = neglabel_odds(rows @ classes.embeddings.T, rows @ negatives.T, reject.temperature)
        least = least_odds(reject.thresholds, len(names))
        answers = model.answer(rows, classes, reject=True)
        assert [one.none_of_these for one in answers] == (odds < least).tolist()
    kept = [
        not one.none_of_these
        for one in model.answer(rows[:9], model.class_set(names=ID_CLASSES), reject=True)
    ]
    assert sum(kept) == 8  # of nine, the 5% below the quantile


def test_the_card_tells_what_other_pictures_do_and_names_no_place(judging):
    card = (judging / "README.md").read_text()
    unknown = ModelInfo.load(judging).reject["float32"].unknown
    assert unknown.keys() == {"ood_test", "noise"}
    assert f"| float32 | noise (none of its classes) | 5 | {unknown['noise'].rejected:.1f}% |" in card
    assert str(judging.parent) not in card
    assert "NegLabel" in card


def test_what_cannot_be_rejected_is_one_line(judging, plain, trained, tmp_path):
    photo, out = val_photos(trained)[0], ("--out", tmp_path / "model")
    (tmp_path / "empty").mkdir()
    many = ",".join([*WORDS, "apple", "banana", "cherry"])
    for words, code, message in (
        (("predict", plain, photo, "--names", "apple", "--reject"), 1, "of one name alone nothing says"),
        (("predict", judging, photo, "--names", "apple", "--reject"), 0, ""),
        (
            ("predict", judging, photo, "--names", many, "--reject"),
            1,
            "18 names are asked for, and the vocab",
        ),
        (("export", trained / "run", *out, "--unknowns", tmp_path / "empty"), 1, "empty"),
        (("export", trained / "run", *out, "--unknowns", tmp_path / "no"), 1, "no"),
    ):
        ended = invoke(*words)
        assert (ended.exit_code, message in ended.output, "Traceback" in ended.output) == (
            code,
            True,
            False,
        ), ended.output
    told = json.loads(
        invoke("predict", judging, photo, "--names", "apple", "--reject", "--format", "jsonl").stdout
    )
    assert told["answer"] in ("apple", "none of these")


def test_a_vocabulary_of_no_more_words_than_there_are_names_rejects_without_its_words():
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(24, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    names, images = rows[:4], rows[4:]
    among = AllClasses(id_classes=("apple", "lemon"), ood_classes=("plum", "fig"))
    compared = {
        "id_test": Compared(similarities=images @ names.T, labels=np.arange(20) % 2, own=(0, 1)),
        "ood_test": Compared(similarities=images @ names.T, labels=2 + np.arange(20) % 2, own=(2, 3)),
    }
    none = RejectCheck.of(
        compared,
        {"id_test": images, "ood_test": images},
        Choices(among=among, texts=names, temperature=0.1),
        words=names,  # two words that were names of OOD classes already
        unknowns={},
    )
    assert none is not None
    reject, _ = none.reject(compared, {"id_test": images, "ood_test": images}, {})
    assert (reject.score, [one.names for one in reject.thresholds]) == ("mcm", [2, 4])
