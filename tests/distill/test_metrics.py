from __future__ import annotations

import numpy as np
import pytest
import torch

# Before torchmetrics, which imports torchvision itself.
import cache.runtime.torchvision_compat  # noqa: F401  # isort: skip
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    multiclass_accuracy,
    multiclass_calibration_error,
)

from distill.judge.evaluate import evaluate, metrics_of
from distill.metrics import (
    ImageScores,
    auroc_interval,
    average_precision,
    calibration_error,
    harmonic_mean,
    id_against_ood,
    macro_accuracy,
)
from distill.student.classifier import AllClasses


def written_out(logits, labels):
    accuracies = []
    for label in sorted({int(y) for y in labels}):
        mine = [i for i, y in enumerate(labels) if int(y) == label]
        accuracies.append(100 * sum(int(logits[i].argmax()) == label for i in mine) / len(mine))
    return sum(accuracies) / len(accuracies)


@pytest.mark.parametrize("seed", range(5))
def test_macro_accuracy_equals_the_loop_over_classes(seed):
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(50, 7, generator=generator)
    labels = torch.randint(5, (50,), generator=generator)  # two classes are never present
    assert macro_accuracy(logits, labels) == pytest.approx(written_out(logits, labels))


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    labels = torch.tensor([0] * 99 + [1])
    always_first = torch.tensor([[1.0, 0.0]]).expand(100, 2)
    assert ImageScores.of(always_first, labels).metrics().accuracy == 50


def test_a_class_without_images_has_no_accuracy():
    accuracy = ImageScores.of(torch.eye(3)[:2], torch.tensor([0, 1])).metrics().per_class_C
    assert accuracy[:2].tolist() == [100, 100]
    assert accuracy[2].isnan()


def test_no_image_is_an_error():
    with pytest.raises(ValueError, match="no image"):
        ImageScores.of(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64)).metrics()


def calibration_written_out(logits, labels):
    """The mean distance of confidence and accuracy in 15 bins, in float64."""
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    error = 0.0
    for low in range(15):
        inside = (confidence >= low / 15) & (confidence < (low + 1) / 15)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


def area_written_out(ids, oods):
    """How often an ID score is above an OOD score, ties counting half, pair by pair."""
    return np.mean([[1.0 if a > b else 0.5 if a == b else 0.0 for b in oods] for a in ids])


@pytest.mark.parametrize("seed", range(3))
def test_every_metric_of_batches_equals_its_formula_over_all_images(seed):
    rng = np.random.default_rng(seed)
    logits, labels = rng.normal(size=(90, 8)) * 3, rng.integers(6, size=90)  # two classes are never present
    rows, at = torch.from_numpy(logits).float(), torch.from_numpy(labels)
    parts = [ImageScores.of(rows[some], at[some]) for some in (slice(0, 40), slice(40, 90))]
    metrics = ImageScores.join(parts).metrics()
    right = logits.argmax(axis=1) == labels
    five = [label in row for label, row in zip(labels, np.argsort(-logits, axis=1)[:, :5], strict=True)]
    for value, own in ((metrics.accuracy, right), (metrics.top5_accuracy, np.array(five))):
        assert value == pytest.approx(100 * np.mean([own[labels == label].mean() for label in range(6)]))
    shifted = logits - logits.max(axis=1, keepdims=True)
    loss = np.log(np.exp(shifted).sum(axis=1)) - shifted[np.arange(90), labels]
    assert metrics.loss == pytest.approx(loss.mean(), rel=1e-5)
    assert metrics.ece == pytest.approx(calibration_written_out(logits, labels), abs=1e-6)
    # And by torchmetrics' functions of all logits at once, where every class is there.
    every = torch.arange(90) % 8
    metrics = ImageScores.of(rows, every).metrics()
    assert metrics.top5_accuracy == pytest.approx(100 * float(multiclass_accuracy(rows, every, 8, top_k=5)))
    assert metrics.ece == pytest.approx(float(multiclass_calibration_error(rows, every, 8)), abs=1e-6)


def test_auroc_is_the_share_of_pairs_in_order_however_near_the_scores_are():
    rng = np.random.default_rng(0)
    # Of these a sigmoid in float32 is 1, and rounding makes many of them equal.
    ids, oods = (30 + rng.normal(shift, 1, size=n).round(1) for shift, n in ((0.5, 60), (0, 45)))
    auroc = id_against_ood(torch.from_numpy(ids).float(), torch.from_numpy(oods).float())
    assert auroc == pytest.approx(area_written_out(ids, oods), abs=1e-6)
    assert 0.5 < auroc < 0.8
    assert id_against_ood(torch.tensor([2.0]), torch.tensor([1.0])) == 1
    assert id_against_ood(torch.ones(3), torch.ones(4)) == 0.5


def test_the_interval_of_an_auroc_is_that_of_hanley_and_mcneil():
    low, high = auroc_interval(0.893, 51, 58)  # their example: a standard error of 0.032
    assert (high - low) / 2 / 1.96 == pytest.approx(0.0325, abs=5e-4)
    assert (low + high) / 2 == pytest.approx(0.893)
    assert auroc_interval(0.5, 50, 50)[0] < 0.5 < auroc_interval(0.5, 50, 50)[1]
    assert auroc_interval(1.0, 5, 5) == (1.0, 1.0)


def test_a_harmonic_mean_is_high_only_where_both_are():
    assert harmonic_mean(60, 20) == 30
    assert harmonic_mean(80, 0) == harmonic_mean(0, 0) == 0


def test_one_pass_judges_a_split_among_its_own_classes_and_among_all():
    among = AllClasses(id_classes=("b", "d"), ood_classes=("a", "c"))
    # Columns are b, d, a, c. The ID images: the second is taken for an OOD class, the third is right twice.
    id_logits = torch.tensor([[5.0, 0.0, 1.0, 2.0], [3.0, 1.0, 4.0, 0.0], [0.0, 2.0, 1.0, 0.0]])
    ood_logits = torch.tensor([[4.0, 0.0, 3.0, 1.0], [0.0, 1.0, 2.0, 9.0]])
    results = {
        name: evaluate(
            [(logits[:1], labels[:1]), (logits[1:], labels[1:])],
            lambda outputs: outputs,
            split=name,
            class_names=classes,
            among=among,
        )
        for name, logits, labels, classes in (
            ("id_test", id_logits, torch.tensor([0, 0, 1]), ("b", "d")),
            ("ood_test", ood_logits, torch.tensor([1, 0]), ("c", "a")),
        )
    }
    metrics = metrics_of(results)
    assert metrics["id_test_accuracy"] == 100
    assert metrics["id_test_all_accuracy"] == pytest.approx((50 + 100) / 2)
    assert (metrics["ood_test_accuracy"], metrics["ood_test_all_accuracy"]) == (100, 50)
    assert metrics["all_harmonic_mean"] == pytest.approx(
        harmonic_mean(metrics["id_test_all_accuracy"], metrics["ood_test_all_accuracy"])
    )
    assert metrics["id_ood_auroc"] == pytest.approx(area_written_out([5, 3, 2], [4, 1]))
    assert "id_test_top5_accuracy" not in metrics  # of two classes, or four, it would be 100 whatever is said
    assert results["id_test"].to_json()["among_all"]["classes"] == 4
    alone = evaluate(
        [(id_logits[:, :2], torch.tensor([0, 0, 1]))], lambda x: x, split="id_test", class_names=("b", "d")
    )
    assert alone.per_class == results["id_test"].per_class
    assert alone.loss == pytest.approx(results["id_test"].loss)
    assert metrics_of({"id_test": alone}).keys() == {"id_test_accuracy", "id_test_loss", "id_test_ece"}


def test_one_class_is_judged_and_says_nothing_of_calibration():
    metrics = ImageScores.of(torch.zeros(3, 1), torch.zeros(3, dtype=torch.int64)).metrics()
    assert (metrics.accuracy, metrics.top5_accuracy, metrics.ece, metrics.loss) == (100, None, None, 0)


def test_id_classes_come_first_and_a_class_of_both_kinds_is_there_once():
    classes = AllClasses.of({"id_test": ("b",), "train": ("b", "d"), "ood_test": ("a", "c", "d")})
    assert (classes.id_classes, classes.ood_classes) == (("b", "d"), ("a", "c"))
    assert classes.columns(("d", "a", "c")) == [1, 2, 3]
    assert AllClasses.of({"id_test": ("b",), "ood_test": ("a",)}).id_classes == ("b",)


@pytest.mark.parametrize("digits", [1, 9])  # of one digit many scores are equal
def test_areas_under_curves_are_those_of_torchmetrics(digits):
    rng = np.random.default_rng(digits)
    scores = torch.from_numpy(rng.random(80).round(digits))
    there = torch.from_numpy(rng.integers(2, size=80)).bool()
    expected = float(binary_average_precision(scores, there.long()))
    assert average_precision(scores, there) == pytest.approx(expected, abs=1e-6)
    expected = float(binary_auroc(scores, there.long()))
    assert id_against_ood(scores[there], scores[~there]) == pytest.approx(expected, abs=1e-6)


def test_a_probability_of_one_is_in_the_last_bin():
    # As sure as 0.95: three of four are right.
    assert calibration_error(
        torch.tensor([1.0, 1.0, 0.95, 0.95]), torch.tensor([1, 0, 1, 1])
    ) == pytest.approx(0.225)


def test_probabilities_of_bfloat16_logits_are_not_rounded_to_it():
    logits = torch.tensor([[7.0, 0.0], [6.5, 1.0]], dtype=torch.bfloat16)
    expected = 1 / (1 + np.exp(-np.array([7.0, 5.5])))
    confidence = ImageScores.of(logits, torch.tensor([0, 0])).confidence_N
    assert confidence.numpy() == pytest.approx(expected, abs=1e-6)  # bfloat16 has steps of 0.004 here
