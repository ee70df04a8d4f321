from __future__ import annotations

import pytest

from distill.headline import (
    below_closed_form,
    headline,
    headline_label,
    headline_splits,
    one_class_notes,
)

ID = {"id_test_accuracy": 60.0, "id_test_loss": 1.0, "id_test_ece": 0.1, "id_test_all_accuracy": 50.0}
# Of one class there is no calibration error among its own.
ONE = {
    "ood_test_accuracy": 100.0,
    "ood_test_loss": 0.0,
    "ood_test_all_accuracy": 20.0,
    "ood_test_all_ece": 0.1,
}


def test_a_split_is_judged_among_its_own_classes_and_one_class_among_all():
    assert headline(ID, "id_test") == 60
    assert headline(ONE, "ood_test") == 20
    assert headline({"id_test_average_precision": 30.0, "id_test_accuracy": 90.0}, "id_test") == 30
    assert headline(ID, "ood_test") is None
    # Where no other class competes there is nothing else to tell.
    assert headline({"id_test_accuracy": 100.0, "id_test_loss": 0.0}, "id_test") == 100


def test_the_tests_are_told_else_what_was_set_aside_else_nothing():
    aside = {"id_val_accuracy": 40.0}
    assert headline_splits([ID | aside, ONE]) == ("id_test", "ood_test")
    assert headline_splits([aside, {}]) == ("id_val",)
    assert headline_splits([{"train_accuracy": 90.0}]) == ()


def test_a_label_says_where_all_numbers_are_among_all():
    assert headline_label([ID, ONE], "id_test") == "ID"
    assert headline_label([ID, ONE], "ood_test") == "OOD among all"
    assert headline_label([ONE, {**ONE, "ood_test_ece": 0.2}], "ood_test") == "OOD"


def test_a_note_points_to_all_classes_where_they_compete():
    (note,) = one_class_notes({"ood_test": True})
    assert note.startswith("ood_test has one class")
    assert note.endswith("read what it does among all classes")
    assert "among all" not in one_class_notes({"train": False})[0]


@pytest.mark.parametrize(("after", "said"), [(71.0, True), (82.9, False)])
def test_a_student_clearly_below_its_closed_form_is_told_with_what_to_do(after, said):
    ridge = {"id_test_accuracy": 83.4, "ood_test_accuracy": 69.0}
    line = below_closed_form({"id_test_accuracy": after, "ood_test_accuracy": 1.0, "closed_form": ridge})
    assert line.startswith("the trained student is below its closed form (ID 71.0% for 83.4%)") == said
    assert below_closed_form({"id_test_accuracy": after}) == ""


@pytest.mark.parametrize(("images", "said"), [(1000, True), (20, False)])
def test_of_few_images_a_difference_says_little(images, said):
    summary = {"id_val_accuracy": 70.0, "closed_form": {"id_val_accuracy": 75.0}}
    assert bool(below_closed_form(summary | {"space": {"id_val": {"images": images}}})) == said
