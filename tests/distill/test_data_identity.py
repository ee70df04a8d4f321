"""What separates two data sets is one line each, and an identity survives the way through a file."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from distill.data_identity import DataIdentity, SplitIdentity

SPLIT = SplitIdentity(images=4, class_names=("a", "b"), keys="k", content="c")

IDENTITY = DataIdentity(
    learnt_from={"train": SPLIT},
    judged_on={"ood_test": replace(SPLIT, class_names=("x", "y"))},
    teachers={"main": "t"},
    texts={"main/labels": {"a": "1", "b": "2"}},
)


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"images": 2}, "train: 4 images here, 2 when it was trained"),
        ({"keys": "z", "content": "z"}, "train: other names of images"),
        ({"content": "z"}, "train: other images under the same names"),
        ({"labels": "z"}, "train: other labels of the same images"),
        ({"rows": "z"}, "train: other rows of the same images"),
        (
            {"class_names": ("a", "c"), "keys": "z"},
            "train: classes only here: b, classes only when it was trained: c",
        ),
        ({"class_names": ("b", "a")}, "train: classes in another order"),
    ],
)
def test_a_split_that_differs_is_one_line_that_says_in_what(changed, difference):
    other = replace(IDENTITY, learnt_from={"train": replace(SPLIT, **changed)})
    assert IDENTITY.differences(other) == [difference]
    assert IDENTITY.judged_differences(other) == []
    assert IDENTITY.digest() != other.digest()


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"judged_on": {}}, "ood_test: 4 images here, none when it was trained"),
        ({"teachers": {"main": "z"}}, "teacher main: t here, z when it was trained"),
        ({"texts": {"main/labels": {"a": "1", "b": "9"}}}, "text bank main/labels: other texts of b"),
        (
            {"pixels": "JPEG of 36 px"},
            "training images: as they are in the files here, JPEG of 36 px when it was trained",
        ),
    ],
)
def test_whatever_else_differs_is_one_line(changed, difference):
    assert IDENTITY.differences(replace(IDENTITY, **changed)) == [difference]


def test_what_a_setting_chose_is_compared_where_both_have_it():
    more = {"captions": {"train": "x"}, "views": "4 crops", "teachers": {"main": "t", "second": "s"}}
    other = replace(
        IDENTITY, texts={"main/labels": {"a": "1", "c": "3"}, "main/described": {"a": "9"}}, **more
    )
    assert IDENTITY.differences(other) == []
    joined = IDENTITY.joined(other)
    assert joined.texts == {"main/labels": {"a": "1", "b": "2", "c": "3"}, "main/described": {"a": "9"}}
    assert joined.differences(replace(other, views="2 crops")) == [
        "views: 4 crops here, 2 crops when it was trained"
    ]
    assert joined.differences(replace(other, captions={"train": "y"})) == ["captions of train: other texts"]
    described = replace(other, texts={"main/described": {"a": "8"}})
    assert joined.differences(described) == ["text bank main/described: other texts of a"]


def test_an_identity_survives_json_and_anything_else_is_refused():
    value = json.loads(json.dumps(IDENTITY.to_json()))
    assert DataIdentity.from_json(value) == IDENTITY
    assert value["digest"] == IDENTITY.digest()
    splits = value["learnt_from"]
    for wrong in (
        None,
        [],
        {},
        {**value, "teachers": {"main": 1}},
        {**value, "texts": {"main/labels": ["a"]}},
        {**value, "learnt_from": {"train": {**splits["train"], "images": "4"}}},
        {**value, "learnt_from": {"train": {**splits["train"], "class_names": [1]}}},
    ):
        with pytest.raises(ValueError, match="the data of the run is not there"):
            DataIdentity.from_json(wrong)
