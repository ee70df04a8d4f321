from __future__ import annotations

from dataclasses import replace

import pytest

from cache.runtime.errors import UserError
from distill.adapt.costs import Pace, check_room, epochs_left, fitted, head_epochs
from distill.adapt.options import in_words, seconds_of
from distill.adapt.score import score_of
from distill.adapt.state import State, changes

# Of a student at 160 px: 100 s an epoch, 50 s for the features, 10 s to judge.
PACE = Pace(size=160, epoch=100.0, features=50.0, judging=10.0)


@pytest.mark.parametrize(
    ("seconds", "size", "epochs"),
    [
        (10_000, 160, 10),  # the recipe, no more
        (500, 160, 3),
        (300, 128, 3),  # of a smaller image, before fewer epochs than are worth it
        (180, 96, 3),
        (90, 96, 1),
        (50, 128, 0),  # the head alone
        (1, 96, 0),
    ],
)
def test_a_budget_has_the_largest_images_at_which_some_epochs_fit(seconds, size, epochs):
    assert fitted(PACE, seconds, epochs=10) == (size, epochs)
    share = (size / 160) ** 2
    assert seconds < 90 or share * (100 * epochs + 50 + 10) < seconds


def test_epochs_that_are_left_fit_what_is_left():
    assert [epochs_left(PACE, seconds, epochs=4) for seconds in (1000, 300, 10, -5)] == [4, 2, 0, 0]


def test_exports_and_the_report_are_counted_and_compare_fewer_images_where_time_is_short():
    pace = replace(PACE, image=0.01, export=5.0, report=15.0, splits={"id_test": 300, "ood_test": 5000})
    assert pace.exporting(500) == 5 + 2 * 0.01 * (300 + 500)
    assert [pace.checked(seconds) for seconds in (1000, 30, 1)] == [2000, 900, 100]
    assert pace.exported(500, 36.0).export == 36 - 16
    assert epochs_left(pace, 300, epochs=4) == epochs_left(PACE, 300 - (21 + 15) / 0.85, epochs=4) == 2
    assert fitted(pace, 300, epochs=10) < fitted(PACE, 300, epochs=10)


def test_a_head_has_fewer_epochs_of_many_images():
    assert [head_epochs(images) for images in (1, 2000, 100_000, 10**7)] == [30, 30, 3, 3]


def test_a_time_is_read_and_said_as_people_do():
    assert [seconds_of(text) for text in ("10m", "90s", "1h30m", "1.5h")] == [600, 90, 5400, 5400]
    for wrong in ("", "10", "m", "0s", "1m1h", "-5m"):
        with pytest.raises(ValueError, match="is no time"):
            seconds_of(wrong)
    assert [in_words(seconds) for seconds in (45, 600, 10_000)] == ["45 s", "10 min", "2.8 h"]


def test_a_disk_without_room_is_told_before_it_begins(tmp_path):
    check_room(tmp_path / "model", 1)
    with pytest.raises(UserError, match=r"model will take about .* its disk has"):
        check_room(tmp_path / "model", 10**18)


def test_with_labels_accuracy_decides_and_without_any_the_cosine():
    space = {"id_val": {"cosine": 0.5}, "pool_val": {"cosine": 0.7}}
    assert score_of({"id_val_accuracy": 80.0, "id_val_ece": 0.1, "space": space})[0] == (80.0, 0.5)
    assert score_of({"pool_val_accuracy": 60.0, "pool_val_ece": 0.1, "space": space})[0] == (0.7, 60.0)
    assert score_of({"id_test_accuracy": 99.0, "space": {}})[0] == ()


def test_what_is_asked_otherwise_than_before_is_said_and_a_state_that_is_not_whole_is_none(tmp_path):
    before = {"seed": 0, "sources": ["a"], "budget": None, "names": ["fig", "plum", "lemon"]}
    assert changes({}, before) == changes(before, before) == []
    assert changes(before, {**before, "seed": 1, "budget": 60.0}) == [
        "--seed was 0, and is 1",
        "--budget was not given, and is 60 s",
    ]
    for names, said in (
        (["fig", "lemon", "kiwi"], "adds kiwi, and leaves out plum"),
        (["plum", "fig", "lemon"], "has another order"),
        ([], "was fig, plum, lemon, and is not given"),
    ):
        assert changes(before, {**before, "names": names}) == [f"--names {said}"]
    assert changes({**before, "names": "names.txt"}, before) == [
        "--names was names.txt, and is fig, plum, lemon"
    ]
    State(options=before).took("teacher", 2.0).took("teacher", 3.0).save(tmp_path)
    assert State.load(tmp_path).seconds == {"teacher": 5.0}
    (tmp_path / "adapt.json").write_text('{"options": 3')
    assert State.load(tmp_path) == State()
