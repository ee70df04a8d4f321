"""The nearest texts of a step are those that the cache would have kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cache.store import neighbours
from distill.config import LossConfig
from distill.objective import distillation_objective, nearest_texts

B, C, D, K = 48, 700, 64, 100


@pytest.fixture
def space():
    """Images [B, D] in float16, as a cache has them, near their class's text, and texts [C, D] in clusters."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(C // 10, D))
    texts = (np.repeat(centres, 10, axis=0) + 0.5 * rng.normal(size=(C, D))).astype("float32")
    labels = rng.integers(0, C, size=B)
    images = (texts[labels] * rng.uniform(0.5, 9, size=(B, 1)) + rng.normal(size=(B, D))).astype("float16")
    return images, texts, labels


def unit(rows) -> torch.Tensor:
    return F.normalize(torch.from_numpy(np.asarray(rows)).float(), dim=1)


def cosines_of(images, texts) -> np.ndarray:
    """All cosines in float64."""
    one, other = (rows.astype("float64") for rows in (images, texts))
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (one, other))
    return one @ other.T


@pytest.mark.parametrize("k", [1, 2, K, 256, C])
def test_a_step_takes_the_texts_that_faiss_finds(space, k):
    images, texts, _ = space
    stored, stored_cosines = neighbours.nearest_texts(images, texts, k)
    nearest, similarity = nearest_texts(unit(images), unit(texts), k)
    assert nearest.shape == similarity.shape == stored.shape
    np.testing.assert_allclose(similarity.numpy(), stored_cosines, rtol=0, atol=1e-6)
    cosines = cosines_of(images, texts)
    # One text in place of another only where no float32 tells which of them is the nearer.
    last = np.sort(cosines, axis=1)[:, -k]
    for mine, theirs, of_image, least in zip(nearest.tolist(), stored.tolist(), cosines, last, strict=True):
        assert len({*mine}) == k
        assert all(abs(of_image[text] - least) < 1e-6 for text in {*mine} ^ {*theirs})
        np.testing.assert_allclose(of_image[mine], of_image[theirs], rtol=0, atol=1e-6)
    np.testing.assert_array_equal(nearest[:, 0].numpy(), stored[:, 0])


@pytest.mark.parametrize("filtered", [False, True])
def test_the_loss_is_the_same_by_stored_and_by_taken_neighbours(space, filtered):
    images, texts, labels = space
    student = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
    given = (student, torch.from_numpy(images).float(), torch.from_numpy(texts), torch.from_numpy(labels))
    config = LossConfig(cls=0, vlalign=1, vlalign_k=K, vlalign_filter=filtered)
    stored = tuple(map(torch.from_numpy, neighbours.nearest_texts(images, texts, K)))
    kept = distillation_objective(*given, config, neighbours=stored)["total"]
    taken = distillation_objective(*given, config)["total"]
    torch.testing.assert_close(taken, kept, rtol=1e-6, atol=0)


def exact_rows(count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows whose cosines are sixteenths, which every sum gives exactly: there are ties everywhere."""
    rows = np.zeros((count, D), dtype="float32")
    for row in rows:
        row[rng.choice(D, 16, replace=False)] = rng.choice([-1, 1], 16)
    return rows


@pytest.mark.parametrize("k", [1, 2, 7, 100, 256])
def test_of_texts_that_are_equally_near_the_first_is_the_nearest_in_both(k):
    rng = np.random.default_rng(0)
    images, texts = exact_rows(B, rng), exact_rows(C, rng)
    cosines = images @ texts.T / 16
    expected = -np.sort(-cosines, axis=1)[:, :k]
    stored, taken = (
        neighbours.nearest_texts(images, texts, k),
        [part.numpy() for part in nearest_texts(unit(images), unit(texts), k)],
    )
    for nearest, similarity in (stored, taken):
        np.testing.assert_array_equal(similarity, expected)
        np.testing.assert_array_equal(np.take_along_axis(cosines, nearest, axis=1), expected)
        np.testing.assert_array_equal(nearest[:, 0], cosines.argmax(axis=1))
        assert all(len({*row}) == k for row in nearest.tolist())
    # Those that are kept have equal ones in the order of the texts.
    tied = stored[1][:, 1:] == stored[1][:, :-1]
    assert (stored[0][:, 1:] > stored[0][:, :-1])[tied].all()


@pytest.mark.parametrize("k", [1, 7, 8, 9, 256])
def test_which_of_two_equal_texts_is_the_last_does_not_change_the_loss(space, k):
    images, texts, labels = space
    twice = np.concatenate([texts[: C // 2]] * 3)
    student = torch.randn(B, D, generator=torch.Generator().manual_seed(0))
    given = (student, torch.from_numpy(images).float(), torch.from_numpy(twice), torch.from_numpy(labels))
    config = LossConfig(cls=0, vlalign=1, vlalign_k=k)
    stored = tuple(map(torch.from_numpy, neighbours.nearest_texts(images, twice, k)))
    kept = distillation_objective(*given, config, neighbours=stored)["total"]
    torch.testing.assert_close(distillation_objective(*given, config)["total"], kept, rtol=1e-5, atol=1e-7)


def test_every_image_may_have_texts_of_its_own(space):
    images, texts, _ = space
    own = torch.stack([unit(texts[i : i + 20]) for i in range(B)])
    nearest, similarity = nearest_texts(unit(images), own, 4)
    for i in range(B):
        alone, cosines = nearest_texts(unit(images[i : i + 1]), own[i], 4)
        assert torch.equal(nearest[i], alone[0])
        torch.testing.assert_close(similarity[i], cosines[0])


@pytest.mark.parametrize(
    ("texts", "asked", "kept"),
    [(1000, None, 0), (20_000, None, 0), (20_001, None, 256), (1000, 64, 64), (50, 64, 50), (10**6, 0, 0)],
)
def test_neighbours_are_kept_of_very_many_texts_or_where_that_is_asked_for(texts, asked, kept):
    assert neighbours.kept_of(texts, asked) == kept
    assert neighbours.pays(texts) is (texts > 20_000)
