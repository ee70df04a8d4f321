"""Several sentences a class, as CuPL writes them."""

from __future__ import annotations

import json

import pytest

from cache.runtime.errors import UserError
from cache.sources.class_sentences import described_bank, text_bank_of

NAMES = {"n01_ant": "fire ant", "n02_bee": "honey bee"}


def written(folder, table):
    path = folder / "cupl.json"
    path.write_text(table if isinstance(table, str) else json.dumps(table))
    return path


def test_sentences_belong_to_the_class_of_that_folder_or_name(tmp_path):
    table = {"n01_ant": ["An ant.", "A  red\nant."], "Honey_Bee": "A bee.", "cow": ["A cow."]}
    bank = text_bank_of(written(tmp_path, table), NAMES)
    assert (bank.name, bank.texts) == ("cupl", ("An ant.", "A red ant.", "A bee."))
    assert bank.classes == ("n01_ant", "n01_ant", "n02_bee")
    assert bank.source == "cupl.json, by name (1 of its classes are not in the data)"


def test_as_descriptions_they_stand_behind_the_name(tmp_path):
    path = written(tmp_path, {"n01_ant": ["It is red.", "It bites."], "n02_bee": ["It flies."]})
    bank = described_bank(path, NAMES, required=[*NAMES])
    assert bank.name == "descriptions"
    assert bank.texts[:2] == ("a photo of fire ant . It is red.", "a photo of fire ant . It bites.")


def test_a_class_without_a_sentence_is_named(tmp_path):
    path = written(tmp_path, {"n01_ant": ["It is red."]})
    with pytest.raises(UserError, match="no sentence of 'n02_bee'"):
        described_bank(path, NAMES, required=[*NAMES])


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ("{", "no JSON of sentences"),
        ("[]", "tells of no class"),
        ("{}", "tells of no class"),
        ({"n01_ant": []}, "'n01_ant' has no sentences"),
        ({"n01_ant": [1]}, "'n01_ant' has no sentences"),
        ({"n01_ant": ["a\0b"]}, "zero byte"),
        ({"n01_ant": ["\ud800"]}, "half a character"),
        ({"cow": ["x"]}, "tells of none of the classes: of 'cow'"),
        ({"n01_ant": ["a"], "fire ant": ["b"]}, "tells of the class 'n01_ant' twice"),
        ('{"n01_ant": ["a"], "n01_ant": ["b"]}', "a class is there twice"),
    ],
)
def test_a_file_that_cannot_be_meant_is_one_line(tmp_path, table, said):
    with pytest.raises(UserError, match=said) as caught:
        text_bank_of(written(tmp_path, table), NAMES)
    assert "\n" not in str(caught.value)


def test_any_other_file_is_lines(tmp_path):
    (tmp_path / "mine.txt").write_text("n01_ant\tAn ant.\nn02_bee\tA bee.\n")
    assert text_bank_of(tmp_path / "mine.txt", NAMES).classes == ("n01_ant", "n02_bee")
