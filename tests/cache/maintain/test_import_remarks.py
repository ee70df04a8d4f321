"""What an import says of its text banks, and that one does not drop another."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Counted

from cache import EmbeddingCache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.errors import UserError

CLASSES = ("apple", "banana", "cherry")
KEYS = [f"train/{name}/{i}.jpg" for name in CLASSES for i in range(2)]


@pytest.fixture
def bring(tmp_path):
    """A function that imports the same rows with a bank of that name and these classes; what it was told."""
    rows = np.random.default_rng(0).normal(size=(len(KEYS), 8)).astype("float32")

    def run(bank, classes):
        embeddings = np.random.default_rng(len(bank)).normal(size=(len(classes), 8))
        texts = ImportedTexts(name=bank, classes=classes, embeddings=embeddings)
        told = Counted()
        import_embeddings(
            tmp_path / "cache", Imported(keys=KEYS, embeddings=rows, texts=[texts]), progress=told
        )
        return told.notes

    return run


def test_a_second_bank_joins_the_first(bring, tmp_path):
    bring("labels", CLASSES)
    before = EmbeddingCache.open(tmp_path / "cache").text_bank("labels")
    bring("second", CLASSES)
    cache = EmbeddingCache.open(tmp_path / "cache")
    assert set(cache.bank_names) == {"labels", "second"}
    np.testing.assert_array_equal(cache.text_bank("labels").embeddings, before.embeddings)


def test_classes_that_a_bank_lacks_and_names_that_are_no_class_are_said(bring):
    assert not [line for line in bring("labels", CLASSES) if line.startswith("labels")]
    remarks = [line for line in bring("odd", ("apple", "pear", "fig")) if line.startswith("odd")]
    assert remarks == [
        "odd: no text for 2 of 3 classes ('banana', 'cherry'): no split that has one of them is trained or "
        "judged with it",
        "odd: 2 of its 3 classes are none of the cache's ('pear', 'fig')",
    ]


def test_a_bank_that_names_no_class_of_the_cache_is_said_to_be_of_no_use_there(bring):
    assert [line for line in bring("odd", ("pear", "fig")) if line.startswith("odd")] == [
        "odd: it names none of the 3 classes ('apple', 'banana', 'cherry'), but 'pear', 'fig': nothing is "
        "trained or judged with it"
    ]


def rows_and_texts(classes, *, away=0.0, seed=0):
    """Keys and rows of 6 images a class, near the text of their class, or near another point of its own."""
    rng = np.random.default_rng(seed)
    texts = rng.normal(size=(classes, 32)).astype("float32")
    centres = texts + away * rng.normal(size=texts.shape)
    names = [f"c{i:02d}" for i in range(classes)]
    keys = [f"train/{name}/{i}.jpg" for name in names for i in range(6)]
    rows = np.repeat(centres, 6, axis=0) + rng.normal(size=(6 * classes, 32)) / 3
    return names, keys, rows.astype("float32"), texts


def test_texts_in_another_order_than_their_names_are_refused_and_nothing_is_written(tmp_path):
    names, keys, rows, texts = rows_and_texts(20)
    bank = ImportedTexts(name="labels", classes=names[::-1], embeddings=texts)
    given = Imported(keys=keys, embeddings=rows, texts=[bank])
    with pytest.raises(UserError, match=r"'labels' is in another order .* right for 0\.0% .* for 100\.0% if"):
        import_embeddings(tmp_path / "cache", given)
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize(("classes", "turned", "away"), [(4, True, 0), (20, False, 50)])
def test_texts_that_are_near_chance_where_rows_tell_classes_apart_are_told(tmp_path, classes, turned, away):
    names, keys, rows, texts = rows_and_texts(classes, away=away)
    bank = ImportedTexts(name="labels", classes=names[::-1] if turned else names, embeddings=texts)
    told = Counted()
    import_embeddings(tmp_path / "c", Imported(keys=keys, embeddings=rows, texts=[bank]), progress=told)
    assert [line for line in told.notes if "the rows tell the classes apart (100.0% by each" in line]


def test_texts_that_fit_and_rows_that_tell_nothing_apart_are_not_remarked_on(tmp_path):
    names, keys, rows, texts = rows_and_texts(20)
    bank = ImportedTexts(name="labels", classes=names, embeddings=texts)
    told = Counted()
    import_embeddings(tmp_path / "a", Imported(keys=keys, embeddings=rows, texts=[bank]), progress=told)
    noise = np.random.default_rng(1).normal(size=rows.shape)
    import_embeddings(tmp_path / "b", Imported(keys=keys, embeddings=noise, texts=[bank]), progress=told)
    assert not [line for line in told.notes if "tell the classes" in line]
