"""One temperature for a student's cosines, and how far its probabilities are off."""

from __future__ import annotations

import numpy as np
import pytest

from distill.judge.calibration import (
    Compared,
    calibrated,
    expected_calibration_error,
    fitted_temperature,
    probabilities_of,
    reliability,
)


def drawn(temperature: float, *, n: int = 4000, classes: int = 7) -> tuple[np.ndarray, np.ndarray]:
    """Cosines, and labels that are drawn from their softmax at a temperature."""
    rng = np.random.default_rng(0)
    cosines = rng.normal(0, 0.2, size=(n, classes)).clip(-1, 1)
    sure = np.exp(cosines / temperature)
    sure /= sure.sum(axis=1, keepdims=True)
    labels = (rng.random((n, 1)) > sure.cumsum(axis=1)).sum(axis=1)
    return cosines.astype(np.float32), labels


def likelihood(cosines: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    logits = cosines.astype(np.float64) / temperature
    of_label = logits[np.arange(len(labels)), labels]
    return float((np.log(np.exp(logits).sum(axis=1)) - of_label).mean())


@pytest.mark.parametrize("temperature", [0.03, 0.1, 0.5])
def test_the_temperature_is_that_of_least_negative_log_likelihood(temperature):
    cosines, labels = drawn(temperature)
    fitted = fitted_temperature(cosines, labels)
    grid = temperature * np.exp(np.linspace(-0.3, 0.3, 601))
    best = grid[np.argmin([likelihood(cosines, labels, one) for one in grid])]
    assert fitted == pytest.approx(best, rel=2e-3)
    assert fitted == pytest.approx(temperature, rel=0.1)  # that they were drawn with


@pytest.mark.parametrize("images", [1, 9, 300])
def test_answers_that_are_all_right_are_let_be_no_surer_than_so_few_images_can_tell(images):
    cosines, _ = drawn(0.1, n=images)
    fitted = fitted_temperature(cosines, cosines.argmax(axis=1))
    said = probabilities_of(cosines, fitted).max(axis=1).mean()
    assert said == pytest.approx((images + 1) / (images + 2), abs=1e-3)


def test_cosines_that_say_nothing_of_the_label_make_all_classes_as_likely():
    cosines, labels = drawn(0.1, n=500)
    fitted = fitted_temperature(cosines, np.roll(cosines.argmin(axis=1), 1))
    assert probabilities_of(cosines, fitted).max() < 0.2
    with pytest.raises(ValueError, match="no labels"):
        fitted_temperature(cosines, labels + 7)


def error_written_out(sure: np.ndarray, right: np.ndarray) -> float:
    total = 0.0
    for i in range(15):
        of_bin = (sure >= i / 15) & ((sure < (i + 1) / 15) | (i == 14))
        if of_bin.any():
            total += of_bin.mean() * abs(sure[of_bin].mean() - right[of_bin].mean())
    return 100 * total


def test_the_calibration_error_is_that_written_out_and_that_of_the_bins():
    cosines, labels = drawn(0.1)
    for temperature in (0.02, 0.1, 1e-4):  # the last one says 1 of most answers
        said = probabilities_of(cosines, temperature)
        right = said.argmax(axis=1) == labels
        error = expected_calibration_error(said, labels)
        assert error == pytest.approx(error_written_out(said.max(axis=1), right), abs=1e-6)
        bins = reliability(said, labels)
        assert sum(one.images for one in bins) == len(labels)
        off = sum(one.images * abs(one.confidence - one.accuracy) for one in bins) / len(labels)
        assert error == pytest.approx(100 * off, abs=1e-6)


def test_it_is_fitted_on_images_set_aside_among_their_own_classes_and_told_of_the_tests():
    cosines, labels = drawn(0.1)
    # Classes 4 to 6 are new: images of the first four are judged among these.
    known = np.flatnonzero(labels < 4)
    aside, tests = known[::2], known[1::2]
    splits = {
        "id_val": Compared(similarities=cosines[aside], labels=labels[aside], own=(0, 1, 2, 3)),
        "id_test": Compared(similarities=cosines[tests], labels=labels[tests], own=(0, 1, 2, 3)),
        "ood_test": Compared(similarities=cosines, labels=np.full(len(cosines), 6), own=(6,)),
    }
    found = calibrated(splits, trained_with=0.5)
    assert found is not None
    assert (found.set_on, found.images) == ("id_val", len(aside))
    assert found.temperature == pytest.approx(fitted_temperature(cosines[aside][:, :4], labels[aside]))
    assert found.splits.keys() == {"id_test"}  # among one class every answer is right
    assert found.among_all.keys() == {"id_test", "ood_test"}
    assert found.splits["id_test"].ece < found.splits["id_test"].before
    del splits["id_val"]
    assert (found := calibrated(splits, trained_with=0.5)) is not None
    assert found.set_on == "id_test"
    assert calibrated({"ood_test": splits["ood_test"]}, trained_with=0.5) is None


def test_without_a_label_the_teachers_answers_stand_for_them():
    cosines, labels = drawn(0.1)
    answered = Compared(similarities=cosines, labels=labels, own=tuple(range(7)))
    assert (found := calibrated({"pool_val": answered}, trained_with=0.5)) is not None
    assert found.set_on == "teacher"
    assert "the teacher's own answers" in found.set_on_words
    assert found.splits.keys() == {"pool_val"}
