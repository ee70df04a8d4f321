"""When an image is of nothing that was asked for."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distill.judge.rejection import (
    MCM,
    NEGLABEL,
    Scorer,
    Threshold,
    auroc,
    far_from,
    fitted_scorer,
    least_odds,
    mcm_odds,
    negatives_of,
    neglabel_odds,
    thresholds_of,
)


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def share(odds: float) -> float:
    return float(np.exp(-np.logaddexp(0, -odds)))


@pytest.fixture
def space() -> dict[str, np.ndarray]:
    """Names and words, and images that lie near a name (``own``) or near a word."""
    rng = np.random.default_rng(0)
    names, words = unit(rng.normal(size=(12, 32))), unit(rng.normal(size=(400, 32)))
    own = np.arange(600) % 12
    return {
        "names": names,
        "words": words,
        "own": own,
        "known": unit(names[own] + 0.2 * rng.normal(size=(600, 32))),
        "unknown": unit(words[rng.integers(400, size=500)] + 0.2 * rng.normal(size=(500, 32))),
    }


@pytest.mark.parametrize("temperature", [0.01, 0.05, 1.0])
def test_both_scores_are_their_formulas_in_float64(space, temperature):
    rows, names, negatives = space["known"][:20], space["names"], space["words"][:50]
    found = neglabel_odds(rows @ names.T, rows @ negatives.T, temperature)
    of_mcm = mcm_odds(rows @ names.T, temperature)
    for i, row in enumerate(rows.astype(np.float64)):
        mine = [math.exp(float(row @ name) / temperature) for name in names.astype(np.float64)]
        others = [math.exp(float(row @ word) / temperature) for word in negatives.astype(np.float64)]
        assert share(found[i]) == pytest.approx(sum(mine) / (sum(mine) + sum(others)), rel=1e-4)
        assert share(of_mcm[i]) == pytest.approx(max(mine) / sum(mine), rel=1e-4)


def test_negatives_are_the_words_that_are_farthest_from_their_nearest_name(space):
    names, words = space["names"], space["words"]
    chosen = far_from(names, words, count=300)
    nearest = (words.astype(np.float64) @ names.T.astype(np.float64)).max(axis=1)
    left = np.setdiff1d(np.arange(400), chosen)
    assert len(chosen) == 300
    assert nearest[chosen].max() <= nearest[left].min()
    assert list(chosen) == sorted(chosen)
    # Names that are words themselves are none of the negatives.
    asked = words[::2]
    others = far_from(asked, words, count=negatives_of(len(words), len(asked)))
    assert set(others) == set(range(1, 400, 2))
    assert negatives_of(400, 12) == 360


@pytest.mark.parametrize("words", [True, False])
def test_95_of_100_id_images_pass_whatever_number_of_names_is_asked_for(space, words):
    scorer = Scorer(temperature=0.05, words=space["words"] if words else None)
    names, of_id = space["names"], space["own"] < 10
    known, own = space["known"][of_id], space["own"][of_id]
    thresholds = thresholds_of(scorer, known, own, names, asked=10)
    assert [one.names for one in thresholds] == ([1, 2, 5, 10, 12] if words else [2, 5, 10, 12])
    for count in (3, 5, 8, 12):
        passed = []
        for seed in range(8):
            asked = np.random.default_rng(seed).permutation(10 if count < 12 else 12)[:count]
            odds = scorer.odds(known[np.isin(own, asked)], names[asked])
            passed.append((odds >= least_odds(thresholds, count)).mean())
        assert np.mean(passed) == pytest.approx(0.95, abs=0.03), count


def test_a_threshold_between_two_goes_by_the_logarithm_of_the_number_of_names():
    thresholds = (Threshold(names=1, least=2.0), Threshold(names=100, least=0.0))
    assert least_odds(thresholds, 10) == pytest.approx(1.0)
    assert least_odds(thresholds, 5000) == 0.0


def test_words_tell_unknown_images_apart_better_than_the_largest_cosine(space):
    known, unknown, names = space["known"], space["unknown"], space["names"]
    scorer = fitted_scorer(known, space["own"], names, words=space["words"], temperature=0.05)
    assert scorer.score == NEGLABEL
    ours = scorer.odds(known, names), scorer.odds(unknown, names)
    plain = (known @ names.T).max(axis=1), (unknown @ names.T).max(axis=1)
    told, before = (float((unknown < np.quantile(known, 0.05)).mean()) for known, unknown in (ours, plain))
    assert told > before
    assert auroc(*ours) > auroc(*plain) > 0.5


def test_without_a_vocabulary_or_with_one_of_too_few_words_it_is_mcm(space):
    for words in (None, space["words"][:12]):
        scorer = fitted_scorer(space["known"], space["own"], space["names"], words=words, temperature=0.07)
        assert (scorer.score, scorer.temperature in (0.07, 0.2, 1.0)) == (MCM, True)
    few = fitted_scorer(space["known"], space["own"] % 3, space["names"][:3], words=None, temperature=0.07)
    assert few.temperature == 0.07


def test_the_auroc_counts_pairs_and_ties_half():
    rng = np.random.default_rng(0)
    known, unknown = rng.integers(0, 9, 40).astype(float), rng.integers(0, 7, 30).astype(float)
    pairs = [[(a > b) + (a == b) / 2 for b in unknown] for a in known]
    assert auroc(known, unknown) == pytest.approx(np.mean(pairs))
