"""Scores, objective and metrics of robotics against formulas written out in float64."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distill.config import LossConfig, RoboticsConfig
from distill.losses import asymmetric_loss, image_contrastive_loss, mse_loss
from distill.robotics.metrics import ObjectCounts, judge_objects
from distill.robotics.objective import episode_objective
from distill.robotics.scores import (
    closed_set_logits,
    local_pair_logits,
    margins,
    pair_logits,
    probabilities,
    scores,
)

T = 0.07


def average_precision_score(labels, values):
    """The sum over falling thresholds of (gain in recall) x precision; equal values fall together."""
    total, recall_before = 0.0, 0.0
    for threshold in sorted(set(values.tolist()), reverse=True):
        chosen = values >= threshold
        recall = labels[chosen].sum() / labels.sum()
        total += (recall - recall_before) * labels[chosen].mean()
        recall_before = recall
    return total


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def cosine(a, b):
    return float(a @ b / math.sqrt(a @ a) / math.sqrt(b @ b))


def test_a_probability_is_the_softmax_of_the_pair(rng):
    rows, text = rng.normal(size=(3, 8)), rng.normal(size=(2, 5, 8))
    logits = pair_logits(torch.from_numpy(rows), torch.from_numpy(text), temperature=T)
    likely = probabilities(logits)
    for b in range(3):
        for c in range(5):
            yes, no = (math.exp(cosine(rows[b], text[p, c]) / T) for p in (0, 1))
            assert likely[b, c].item() == pytest.approx(yes / (yes + no), rel=1e-4, abs=1e-6)
    torch.testing.assert_close(margins(logits).sigmoid(), likely)


def test_locations_count_by_their_softmax(rng):
    located, text = rng.normal(size=(2, 6, 8)), rng.normal(size=(2, 4, 8))
    pair_logits = local_pair_logits(torch.from_numpy(located), torch.from_numpy(text), temperature=T)
    for p in range(2):
        for b in range(2):
            for c in range(4):
                cosines = [cosine(row, text[p, c]) for row in located[b]]
                weights = [math.exp(value / T) for value in cosines]
                mean = sum(w * v for w, v in zip(weights, cosines, strict=True)) / sum(weights)
                assert pair_logits[p, b, c].item() == pytest.approx(mean / T, rel=1e-4)


def test_the_baselines_outputs_are_a_positive_and_a_negative_half(rng):
    outputs, columns = torch.from_numpy(rng.normal(size=(3, 10))), torch.tensor([4, 1])
    logits = closed_set_logits(outputs, columns)
    torch.testing.assert_close(logits[0].double(), outputs[:, [4, 1]], rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(logits[1].double(), outputs[:, [9, 6]], rtol=1e-6, atol=1e-6)
    located = torch.from_numpy(rng.normal(size=(3, 7, 10)))
    values = located[:, :, [9, 6]]
    expected = (values.softmax(dim=1) * values).sum(dim=1)
    torch.testing.assert_close(
        closed_set_logits(located, columns)[1].double(), expected, rtol=1e-5, atol=1e-6
    )


def test_a_score_is_the_probability_plus_tanh_of_the_bias_clamped():
    biased = scores(torch.tensor([[0.1, 0.5, 0.95]]), torch.tensor(-0.2))
    expected = [0.0, 0.5 - math.tanh(0.2), 0.95 - math.tanh(0.2)]
    assert biased[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_the_objective_adds_the_asymmetric_loss_to_the_image_losses(rng):
    student, teacher = (torch.from_numpy(rng.normal(size=(6, 8))).float() for _ in range(2))
    probability = torch.from_numpy(rng.uniform(size=(6, 4))).float()
    labels, bias = torch.from_numpy(rng.integers(0, 2, size=(6, 4))), torch.tensor(0.3)
    parts = episode_objective(
        probability,
        labels,
        bias,
        LossConfig(cls=0.5, mse=2.0, im_cst=3.0),
        RoboticsConfig(gamma_neg=2, gamma_pos=1, clip=0.05),
        student_BD=student,
        teacher_BD=teacher,
    )
    unit = [torch.nn.functional.normalize(rows, dim=1) for rows in (student, teacher)]
    cls = asymmetric_loss(probability, labels, gamma_neg=2, gamma_pos=1, clip=0.05, bias=math.tanh(0.3))
    expected = {"cls": cls, "mse": mse_loss(*unit), "im_cst": image_contrastive_loss(unit[0] @ unit[1].T / T)}
    for name, value in expected.items():
        torch.testing.assert_close(parts[name], value)
    total = 0.5 * expected["cls"] + 2 * expected["mse"] + 3 * expected["im_cst"]
    torch.testing.assert_close(parts["total"], total)
    alone = episode_objective(probability, labels, bias, LossConfig(cls=0.5), RoboticsConfig())
    torch.testing.assert_close(alone["total"], cls)
    without = episode_objective(
        probability,
        labels,
        bias,
        LossConfig(cls=0.0, mse=1.0),
        RoboticsConfig(),
        student_BD=student,
        teacher_BD=teacher,
    )
    assert set(without) == {"mse", "total"}


def judged(margin, labels, **more):
    names = [f"o{i}" for i in range(labels.shape[1])]
    return judge_objects(
        torch.from_numpy(margin),
        torch.from_numpy(labels),
        split="ood_test",
        class_names=names,
        id_objects=names[:3],
        **more,
    )


def test_metrics_are_counts_over_everything_and_one_ratio_at_the_end(rng):
    margin, labels = rng.normal(size=(40, 5)), rng.integers(0, 2, size=(40, 5))
    result = judged(margin, labels, score_bias=0.1, threshold=0.6)
    predicted = (1 / (1 + np.exp(-margin)) + np.tanh(0.1)).clip(0, 1) >= 0.6
    for group, inside in (("all", slice(0, 5)), ("id_objects", slice(0, 3)), ("ood_objects", slice(3, 5))):
        f, t = predicted[:, inside], labels[:, inside].astype(bool)
        metrics = result.groups[group]
        assert metrics["accuracy"] == pytest.approx(100 * (f == t).mean())
        assert metrics["precision"] == pytest.approx(100 * (f & t).sum() / f.sum())
        assert metrics["recall"] == pytest.approx(100 * (f & t).sum() / t.sum())
        own = [average_precision_score(labels[:, c], margin[:, c]) for c in range(5)[inside]]
        assert metrics["average_precision"] == pytest.approx(100 * np.mean(own), rel=1e-5)
    assert result.flat()["ood_test_ood_objects_recall"] == result.groups["ood_objects"]["recall"]
    assert result.flat()["ood_test_accuracy"] == result.groups["all"]["accuracy"]


def test_batches_do_not_change_the_ratios(rng):
    likely, labels = (
        torch.from_numpy(rng.uniform(size=(30, 4))),
        torch.from_numpy(rng.integers(0, 2, (30, 4))),
    )
    whole, parts = ObjectCounts.none(), ObjectCounts.none()
    whole.add(likely, labels)
    for start in range(0, 30, 7):
        parts.add(likely[start : start + 7], labels[start : start + 7])
    assert parts.ratios() == whole.ratios()
    again = ObjectCounts(**parts.state())
    again.add(likely, labels)
    assert again.ratios() == whole.ratios()


def test_what_is_undefined_is_absent():
    labels = np.zeros((4, 5), dtype=np.int64)
    labels[0, 0] = 1
    result = judged(np.full((4, 5), -9.0), labels)
    assert set(result.groups["all"]) == {"accuracy", "recall", "average_precision"}  # nothing was found
    assert set(result.groups["ood_objects"]) == {"accuracy"}  # and none of these was there
    assert result.per_object == {"o0": pytest.approx(25.0)}
    assert not any(math.isnan(value) for value in result.flat().values())


def test_average_precision_sees_margins_that_the_probability_rounds_away():
    margin = np.array([[60.0], [50.0], [40.0], [-50.0]])
    labels = np.array([[1], [0], [1], [0]])
    expected = average_precision_score(labels[:, 0], margin[:, 0])
    names = ["one"]
    result = judge_objects(
        torch.from_numpy(margin).float(),
        torch.from_numpy(labels),
        split="s",
        class_names=names,
        id_objects=names,
    )
    assert result.groups["all"]["average_precision"] == pytest.approx(100 * expected, rel=1e-5)
    assert set(result.groups) == {"all"}
