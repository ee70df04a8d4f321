"""Splits that a rule makes of labelled images by hash."""

from __future__ import annotations

import pytest

from cache.runtime.errors import UserError
from cache.sources.data import open_data
from cache.sources.source_options import SourceOptions
from cache.sources.split_rules import EXAMPLE, SplitRule, selected
from cache.sources.synthetic import SyntheticSource

RULE = SplitRule.parse(EXAMPLE)
GOLDEN_OOD, GOLDEN_ID_TEST = {"class 3", "class 7", "class 11"}, 33


@pytest.fixture
def folder(tmp_path):
    """Twelve classes of twenty files, of which none is a picture."""
    for number in range(12):
        (tmp_path / "data" / f"class {number}").mkdir(parents=True)
        for image in range(20):
            (tmp_path / "data" / f"class {number}" / f"{image}.jpg").write_text(f"{number} {image}")
    return tmp_path / "data"


def keys_of(data, rule=RULE):
    splits = open_data([data], SourceOptions(rule=rule)).splits
    return {name: {sample.key for sample in split.all()} for name, split in splits.items()}


def classes_of(keys):
    return {key.partition("/")[0] for key in keys}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (EXAMPLE, SplitRule(id_test=0.2, ood_test=0.3)),
        (" ood_test = 30% of classes , id_test=.2", SplitRule(id_test=0.2, ood_test=0.3)),
        ("id_test=5%", SplitRule(id_test=0.05)),
        ("ood_test=0.5 of classes", SplitRule(ood_test=0.5)),
    ],
)
def test_a_rule_is_read_and_written(text, rule):
    assert SplitRule.parse(text) == rule
    assert SplitRule.parse(str(rule)) == rule


@pytest.mark.parametrize(
    "text",
    [
        *("", "id_test", "id_test=1", "id_test=1.5", "id_test=-0.1", "id_test=100%", "id_test=nan"),
        *("ood_test=0.3", "ood_test=0.3 of images", "id_test=0.2 of classes", "train=0.5"),
        "id_test=0.1,id_test=0.2",
    ],
)
def test_what_is_no_rule_is_refused(text):
    with pytest.raises(UserError, match=r"is not of the form 'id_test=0\.2,ood_test=0\.3 of classes'"):
        SplitRule.parse(text)


def test_every_image_is_in_one_split_and_each_class_on_one_side(folder):
    keys = keys_of(folder)
    assert sum(map(len, keys.values())) == len(set.union(*keys.values())) == 240
    assert classes_of(keys["train"]) == classes_of(keys["id_test"])
    assert not classes_of(keys["train"]) & classes_of(keys["ood_test"])
    # Pinned: the same names must give this split on every machine.
    assert classes_of(keys["ood_test"]) == GOLDEN_OOD
    assert len(keys["id_test"]) == GOLDEN_ID_TEST


def test_new_classes_and_images_move_no_other(folder):
    before = keys_of(folder)
    for number in range(12, 30):
        (folder / f"class {number}").mkdir()
        (folder / f"class {number}" / "0.jpg").write_text("new")
    for image in range(20, 40):
        (folder / "class 3" / f"{image}.jpg").write_text("new")
    after = keys_of(folder)
    for split, keys in before.items():
        assert keys <= after[split]


def test_of_two_classes_one_is_on_each_side_whatever_the_share():
    for share in (0.01, 0.5, 0.99):
        assert len(SplitRule(ood_test=share).ood_classes(("a", "b"))) == 1


def test_of_many_classes_and_images_the_shares_are_met():
    names = [f"n{number:08}" for number in range(2000)]
    assert len(RULE.ood_classes(names)) == pytest.approx(600, abs=80)
    assert sum(RULE.is_test(f"a/{number}.jpg") for number in range(5000)) == pytest.approx(1000, abs=120)


def test_one_class_has_no_side(tmp_path):
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "1.jpg").write_text("x")
    with pytest.raises(UserError, match="leaves 1 classes to train and 0 to test, of 1"):
        keys_of(tmp_path)


def test_what_a_rule_makes_is_said_in_one_line(folder):
    (note,) = open_data([folder], SourceOptions(rule=RULE)).notes
    assert note.startswith(f"--split {EXAMPLE}: {12 - len(GOLDEN_OOD)} of 12 classes are trained, ")
    assert f"{len(GOLDEN_OOD)} classes are the OOD test (class " in note


def test_a_rule_that_nothing_needs_is_an_error(tmp_path):
    (tmp_path / "train" / "a").mkdir(parents=True)
    (tmp_path / "train" / "a" / "1.jpg").write_text("x")
    with pytest.raises(UserError, match="--split has nothing to split"):
        keys_of(tmp_path)


def test_parts_list_and_read_what_is_theirs_alone():
    source = SyntheticSource("train", rows=200, classes=5, side=8)
    for split in selected(source, RULE).values():
        listed = [one.key for chunk in split.chunks() for one in split.list(chunk.id)]
        read = [one.key for chunk in split.chunks() for one in split.read(chunk.id)]
        assert listed == read
        assert sorted(listed) == [sample.key for sample in split.all()]
        assert len(split) == len(listed) > 0
        assert [sample.key for sample in split.samples(listed[:3])] == listed[:3]
        others = {sample.key for sample in source.all()} - {*listed}
        with pytest.raises(KeyError):
            list(split.samples([min(others)]))
    one, other = (selected(source, rule)["train"].chunks() for rule in (RULE, SplitRule(id_test=0.5)))
    assert [chunk.identity for chunk in one] != [chunk.identity for chunk in other]
