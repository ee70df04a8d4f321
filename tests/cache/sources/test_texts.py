from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from cache.build.distinct_texts import check_positions, check_told_apart
from cache.maintain.import_embeddings import import_embeddings
from cache.maintain.imported import Imported
from cache.maintain.imported_banks import ImportedTexts
from cache.runtime.errors import CacheMismatch, UserError
from cache.sources import class_texts as texts

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
    ("content", "message"),
    [
        ("apple 1 apple\n", "no line for the class folder 'blood_orange'"),
        ("apple 1 apple\napple 2 pear\n", "'apple' is there twice"),
        ("apple one apple\n", "is not FOLDER INDEX NAME"),
    ],
)
def test_a_wrong_label2text_is_an_error_with_its_line(tmp_path, content, message):
    path = tmp_path / "label2text.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        texts.class_names_of(path, ["apple", "blood_orange"])


def test_descriptions_by_position_follow_label2text_and_skip_blank_lines(tmp_path):
    names = {"b": "bee", "a": "ant"}
    path = tmp_path / "chatgpt.txt"
    path.write_text("It buzzes.\n\n  It crawls. \n")
    bank = texts.description_bank(names, texts.read_descriptions(path, names))
    assert bank.texts == ("a photo of bee . It buzzes.", "a photo of ant . It crawls.")
    assert bank.lines == ("It buzzes.", "It crawls.")
    path.write_text("only one\n")
    with pytest.raises(UserError, match="1 descriptions, but there are 2 classes"):
        texts.read_descriptions(path, names)


def test_descriptions_by_name_go_to_their_folders_in_any_order(tmp_path):
    names = {"b": "bee", "a": "ant", "of label2text alone": "x"}
    path = tmp_path / "chatgpt.txt"
    path.write_text("a\tIt crawls,\tslowly.\n\n b \t It buzzes. \n")
    descriptions = texts.read_descriptions(path, names, required=["a", "b"])
    bank = texts.description_bank(names, descriptions)
    assert bank.classes == ("b", "a")
    assert bank.texts == ("a photo of bee . It buzzes.", "a photo of ant . It crawls,\tslowly.")
    assert bank.source == "chatgpt.txt, by name"
    assert not bank.lines


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("aple\tx\nplum\ty\n", "'aple' is not a class. Fix: did you mean 'apple'"),
        ("apple\tx\n", "no description of 'plum'"),
        ("apple\tx\nplum\ty\napple\tz\n", "'apple' is there twice"),
        ("apple\tx\nplum\t \n", "no text of 'plum'"),
        ("apple\tx\nA plum.\n", "1 of 2 lines have a tab, not A plum"),
    ],
)
def test_descriptions_by_name_that_do_not_fit_are_named(tmp_path, content, message):
    path = tmp_path / "chatgpt.txt"
    path.write_text(content)
    with pytest.raises(UserError, match=re.escape(message)) as error:
        texts.read_descriptions(path, {"apple": "apple", "plum": "plum"})
    assert str(path) in str(error.value)


def labels(**names):
    return texts.label_bank(names, source="label2text.txt, by name")


def test_two_classes_of_one_split_with_one_text_are_named():
    with pytest.raises(
        UserError, match=r"'a' and 'c' have the same text .*label2text\.txt.*'a photo of ant'"
    ):
        check_told_apart(labels(a="ant", b="bee", c="ant"), [["a", "b", "c"]])
    check_told_apart(labels(a="ant", b="bee", c="ant"), [["a", "b"], ["b", "c"]])
    check_told_apart(labels(a="ant", b="bee", c="bee"), [["a", "b"]])  # c is in the list of names alone


def test_two_texts_that_the_tokenizer_reads_as_one_are_named():
    bank = labels(a="a very long name of ants", b="a very long name of bees", c="flies")
    check_told_apart(bank, [["a", "b", "c"]])
    with pytest.raises(UserError, match=r"'a' and 'b'.*tokenizer.*of ants' and 'a photo of .* of bees'"):
        check_told_apart(bank, [["a", "b", "c"]], tokens=lambda texts: [text[:20] for text in texts])


def test_several_texts_of_a_class_tell_it_apart_when_one_does():
    names = {"a": "ant", "b": "bee"}
    bank = texts.template_bank("templates", names, ["a {}", "the {}"])
    check_told_apart(bank, [["a", "b"]], tokens=lambda texts: [text[:3] for text in texts])
    with pytest.raises(UserError, match="'a' and 'b' have the same text"):
        check_told_apart(bank, [["a", "b"]], tokens=lambda texts: [text[:2] for text in texts])


def by_position(**lines):
    return texts.BankTexts(
        name="mine",
        texts=tuple(lines.values()),
        classes=tuple(lines),
        templates=("{}",),
        lines=tuple(lines.values()),
    )


@pytest.mark.parametrize(
    ("now", "moved"),
    [
        ({"a": "red", "b": "dark red", "c": "blue"}, ""),
        ({"b": "red", "c": "dark red", "d": "blue"}, "'b' would get 'red', which 'a' had"),
        ({"a": "dark red", "b": "red", "c": "blue"}, "'a' would get 'dark red', which 'b' had"),
        ({"a": "red", "b": "dark red", "x": "blue"}, ""),  # renamed in its place
        ({"a": "scarlet", "b": "crimson", "c": "azure"}, ""),  # other texts
        ({"a": "red", "b": "dark red", "bb": "green", "c": "blue"}, ""),  # a new line for a new class
        (
            {"a": "red", "aa": "dark red", "b": "blue", "c": "green"},
            "'aa' would get 'dark red', which 'b' had",
        ),
    ],
)
def test_a_class_that_would_get_the_line_of_another_is_named(tmp_path, now, moved):
    before = {"a": "red", "b": "dark red", "c": "blue"}
    rows = np.eye(3, 4, dtype="float32")
    bank = ImportedTexts(name="mine", classes=list(before), texts=list(before.values()), embeddings=rows)
    keys = [f"train/{name}/0.jpg" for name in before]
    import_embeddings(tmp_path / "cache", Imported(keys=keys, embeddings=rows, texts=[bank]))
    check_positions(tmp_path / "new", [by_position(**now)])
    if not moved:
        check_positions(tmp_path / "cache", [by_position(**now)])
        return
    with pytest.raises(CacheMismatch, match=moved):
        check_positions(tmp_path / "cache", [by_position(**now)])
    check_positions(tmp_path / "cache", [replace(by_position(**now), lines=())])  # by name, it is meant


def test_texts_of_no_class_and_prompts_that_may_tie_may_be_the_same(tmp_path):
    path = tmp_path / "styles.txt"
    path.write_text("a drawing\na drawing\na painting\n")
    check_told_apart(texts.file_bank(path, {"a": "ant", "b": "bee"}), [["a", "b"]])
    nothing = texts.BankTexts(name="n", texts=("none",) * 2, classes=("a", "b"), templates=("{}",))
    check_told_apart(replace(nothing, may_tie=True), [["a", "b"]])
    with pytest.raises(UserError, match="'a' and 'b' have the same text"):
        check_told_apart(nothing, [["a", "b"]])


def test_templates_make_one_text_a_class_and_template():
    bank = texts.template_bank("templates", {"a": "ant"}, ["a {}", "the {}"])
    assert bank.texts == ("a ant", "the ant")
    assert bank.classes == ("a", "a")
    for odd in ("no place", "{} and {}", "{} {0}", "{} }"):
        with pytest.raises(UserError, match=r"no single \{\}"):
            texts.template_bank("templates", {"a": "ant"}, [odd])


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
