"""Class folders that are called by ids are told of, words with numbers in them are not."""

import pytest

from cache.sources.id_names import ids_note


@pytest.mark.parametrize(
    ("folders", "first"),
    [
        (["n01440764", "n01443537"], "'n01440764'"),
        (["001.Red_Square", "002.Blue_Disc", "other"], "'001.Red_Square'"),
        (["0", "1", "2"], "'0'"),
    ],
)
def test_ids_get_a_line_with_what_to_give(folders, first):
    note = ids_note(folders)
    assert (first in note, "--label2text" in note) == (True, True)


@pytest.mark.parametrize(
    "folders", [["red star", "blue disc"], ["7up", "cola", "tea"], ["737-800", "A320", "jet"], []]
)
def test_words_get_none(folders):
    assert ids_note(folders) == ""
