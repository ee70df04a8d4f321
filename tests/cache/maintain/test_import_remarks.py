"""What an import says of its text banks, and that one does not drop another."""

from __future__ import annotations

import numpy as np
import pytest
from conftest import Counted

from cache import EmbeddingCache
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts

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
