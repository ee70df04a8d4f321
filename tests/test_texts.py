from __future__ import annotations

import json

import pytest

from cache import texts
from cache.errors import UserError

FOLDERS = ["apple", "blood_orange", "area 51"]


def test_names_come_from_label2text_with_underscores_as_spaces(tmp_path):
    path = tmp_path / "label2text.txt"
    path.write_text(
        "apple 1 green_apple_\nblood_orange 2 blood_orange\narea 51 3 area_51 map\ncolt's 4 colt's_foot\n"
    )
    names = texts.class_names_of(path, FOLDERS)
    assert names == {
        "apple": "green apple",
        "blood_orange": "blood orange",
        "area 51": "area 51 map",
        "colt's": "colt's foot",
    }


def test_names_come_from_folders_without_label2text():
    assert texts.class_names_of(None, FOLDERS)["blood_orange"] == "blood orange"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("apple 1 apple\n", "no line for the class folder 'blood_orange'"),
        ("apple 1 apple\napple 2 pear\n", "'apple' is there twice"),
        ("apple one apple\n", "is not FOLDER INDEX NAME"),
    ],
)
def test_a_wrong_label2text_is_an_error_with_its_line(tmp_path, content, said):
    path = tmp_path / "label2text.txt"
    path.write_text(content)
    with pytest.raises(UserError) as error:
        texts.class_names_of(path, ["apple", "blood_orange"])
    assert said in str(error.value)


def test_descriptions_follow_label2text_and_skip_blank_lines(tmp_path):
    names = {"b": "bee", "a": "ant"}
    path = tmp_path / "chatgpt.txt"
    path.write_text("It buzzes.\n\n  It crawls. \n")
    bank = texts.description_bank(names, texts.read_descriptions(path, names))
    assert bank.texts == ("a photo of bee . It buzzes.", "a photo of ant . It crawls.")
    path.write_text("only one\n")
    with pytest.raises(UserError, match="1 descriptions, but there are 2 classes"):
        texts.read_descriptions(path, names)


def test_templates_make_one_text_a_class_and_template():
    bank = texts.template_bank("templates", {"a": "ant"}, ["a {}", "the {}"])
    assert bank.texts == ("a ant", "the ant")
    assert bank.classes == ("a", "a")
    with pytest.raises(UserError, match=r"no single \{\}"):
        texts.template_bank("templates", {"a": "ant"}, ["no place"])


def test_text_files_are_by_class_by_order_or_free(tmp_path):
    names = {"a": "ant", "b": "bee"}
    path = tmp_path / "mine.txt"
    path.write_text("a\tan ant\nb\ta bee\na\tsome ants\n")
    assert texts.file_bank(path, names).classes == ("a", "b", "a")
    path.write_text("ants\nbees\n")
    assert texts.file_bank(path, names).classes == ("a", "b")
    path.write_text("x\ny\nz\n")
    assert texts.file_bank(path, names).classes == ("", "", "")
    path.write_text("q\tx\nb\ty\n")
    with pytest.raises(UserError, match="'q' is not a class"):
        texts.file_bank(path, names)


def test_captions_are_found_under_every_spelling_of_a_key(tmp_path):
    path = tmp_path / "captions.jsonl"
    lines = [
        {"key": "val/a/1.jpg", "caption": "one"},
        {"key": "ood_test/a/2.jpg", "caption": "two"},
        {"key": "a/3.jpg", "caption": " "},
    ]
    path.write_text("\n".join(map(json.dumps, lines)))
    captions = texts.read_captions(path)
    assert [texts.caption_of(captions, "ood_test", f"a/{i}.jpg") for i in (1, 2, 3, 4)] == [
        "one",
        "two",
        "a photo",
        None,
    ]
    path.write_text('{"key": "a/1.jpg"}\n')
    with pytest.raises(UserError, match="line 1"):
        texts.read_captions(path)
