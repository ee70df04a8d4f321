from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch

from distill.judge.space import image_neighbours, overlap, pairwise_spearman, space_metrics

N, D, C = 40, 8, 12
TEMPERATURE = 0.07


def random_rows(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def spaces():
    """A student that is somewhat like its teacher, the teacher, and texts; none of unit length."""
    teacher = 3 * random_rows(N, D, seed=0)
    student = teacher + 2 * random_rows(N, D, seed=1)
    return student, teacher, 5 * random_rows(C, D, seed=2)


# The same numbers, written out slowly in float64.


def cos(a, b):
    a, b = a.double(), b.double()
    lengths = float(a.norm()) * float(b.norm())
    return sum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)) / lengths if lengths else 0.0


def slow_nearest(row, others, k):
    """`others` is {index: row}."""
    return sorted(others, key=lambda j: -cos(row, others[j]))[:k]


def slow_image_overlap(student, teacher, k):
    shares = []
    for i in range(len(student)):
        overlaps = [
            set(slow_nearest(rows[i], {j: rows[j] for j in range(len(rows)) if j != i}, k))
            for rows in (student, teacher)
        ]
        shares.append(len(overlaps[0] & overlaps[1]) / len(overlaps[0]))
    return sum(shares) / len(shares)


def slow_text_overlap(student, teacher, text, k):
    texts = dict(enumerate(text))
    shares = []
    for s, v in zip(student, teacher, strict=True):
        ours, theirs = set(slow_nearest(s, texts, k)), set(slow_nearest(v, texts, k))
        shares.append(len(ours & theirs) / len(ours))
    return sum(shares) / len(shares)


def slow_cka(student, teacher):
    """Through N x N kernels: HSIC(K, L) / sqrt(HSIC(K, K) HSIC(L, L))."""
    centre = np.eye(len(student)) - 1 / len(student)
    kernels = [
        centre @ np.array([[cos(a, b) for b in rows] for a in rows]) @ centre for rows in (student, teacher)
    ]

    def hsic(a, b):
        return float(np.trace(a @ b))

    k, m = kernels
    return hsic(k, m) / math.sqrt(hsic(k, k) * hsic(m, m))


def slow_ranks(values):
    return [sum(w < v for w in values) + (1 + sum(w == v for w in values)) / 2 for v in values]


def slow_spearman(student, teacher):
    pairs = [(i, j) for i in range(len(student)) for j in range(i)]
    ranks = [slow_ranks([round(cos(rows[i], rows[j]), 6) for i, j in pairs]) for rows in (student, teacher)]
    return float(np.corrcoef(ranks[0], ranks[1])[0, 1])


def slow_vlalign(student, teacher, text, k):
    divergences = []
    for s, v in zip(student, teacher, strict=True):
        nearest = slow_nearest(v, dict(enumerate(text)), k)
        p, q = ([math.exp(cos(row, text[c]) / TEMPERATURE) for c in nearest] for row in (v, s))
        divergences.append(
            sum(a / sum(p) * math.log((a / sum(p)) / (b / sum(q))) for a, b in zip(p, q, strict=True))
        )
    return sum(divergences) / len(divergences)


def test_the_keys_are_those_of_the_docstring(spaces):
    assert sorted(space_metrics(*spaces)) == [
        "cosine",
        "image_neighbours_1",
        "image_neighbours_10",
        "image_neighbours_5",
        "linear_cka",
        "pairwise_spearman",
        "text_neighbours_1",
        "text_neighbours_10",
        "text_neighbours_5",
        "vlalign",
    ]


def test_cosine_equals_the_formula(spaces):
    student, teacher, _ = spaces
    expected = sum(map(cos, student, teacher)) / N
    assert space_metrics(*spaces)["cosine"] == pytest.approx(expected)


def test_linear_cka_equals_the_kernel_formula(spaces):
    assert space_metrics(*spaces)["linear_cka"] == pytest.approx(slow_cka(*spaces[:2]))


def test_image_neighbours_equal_the_loop(spaces):
    numbers = space_metrics(*spaces, top=(1, 5))
    for k in (1, 5):
        expected = slow_image_overlap(*spaces[:2], k)
        assert 0 < expected < 1
        assert numbers[f"image_neighbours_{k}"] == pytest.approx(expected)


def test_text_neighbours_equal_the_loop(spaces):
    numbers = space_metrics(*spaces)
    for k in (1, 5, 10):
        expected = slow_text_overlap(*spaces, k)
        assert 0 < expected < 1
        assert numbers[f"text_neighbours_{k}"] == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 3, C, 256])
def test_vlalign_equals_the_formula(spaces, k):
    expected = slow_vlalign(*spaces, min(k, C))
    assert space_metrics(*spaces, k=k)["vlalign"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_pairwise_spearman_equals_the_loop(spaces):
    assert space_metrics(*spaces)["pairwise_spearman"] == pytest.approx(slow_spearman(*spaces[:2]))


def test_tied_cosines_share_their_average_rank():
    # Corners of a cube of side 2, and copies of them: only a few different cosines.
    student, teacher = (
        torch.randint(2, (20, 3), generator=torch.Generator().manual_seed(seed)).float() * 2 - 1
        for seed in (3, 4)
    )
    teacher[:15] = student[:15]
    numbers = space_metrics(student, teacher, torch.eye(3))
    assert numbers["pairwise_spearman"] == pytest.approx(slow_spearman(student, teacher))


def test_many_ties_do_not_overflow():
    # Half a million pairs but two cosines a side, whose rank correlation is their plain correlation.
    image = torch.arange(1000)
    spaces = [torch.eye(2, dtype=torch.float64)[(image % period == 0).long()] for period in (2, 5)]
    spaces[1][:300] = spaces[0][:300]
    pairs = np.triu_indices(1000, 1)
    expected = np.corrcoef(*((rows @ rows.T).numpy()[pairs] for rows in spaces))[0, 1]
    assert 0.02 < expected < 0.9
    assert pairwise_spearman(*spaces) == pytest.approx(expected)


def test_identical_spaces_are_as_close_as_can_be(spaces):
    _, teacher, text = spaces
    numbers = space_metrics(teacher, teacher, text)
    assert numbers.pop("vlalign") == pytest.approx(0, abs=1e-6)
    assert numbers == pytest.approx(dict.fromkeys(numbers, 1.0))


def test_a_rotation_of_the_student_keeps_what_is_within_its_space(spaces):
    student, teacher, text = spaces
    rotation = torch.linalg.qr(random_rows(D, D, seed=5).double())[0]
    before = space_metrics(student, teacher, text)
    after = space_metrics((student.double() @ rotation).float(), teacher, text)
    for name in before:
        if name.startswith(("image_neighbours", "linear_cka", "pairwise")):
            assert after[name] == pytest.approx(before[name], abs=1e-5), name
    assert after["cosine"] != pytest.approx(before["cosine"], abs=0.1)
    assert after["vlalign"] != pytest.approx(before["vlalign"], abs=0.1)


@pytest.mark.parametrize("scale", [1e-25, 0.5, 1000.0, 1e25])
def test_scale_does_not_matter(spaces, scale):
    student, teacher, text = spaces
    one_by_one = torch.linspace(1, 2, N)[:, None]
    expected = pytest.approx(space_metrics(student, teacher, text), rel=1e-4)
    assert space_metrics(scale * one_by_one * student, teacher, text) == expected
    assert space_metrics(student, scale * one_by_one * teacher, scale * text) == expected


def test_more_neighbours_than_there_are_means_all(spaces):
    numbers = space_metrics(*spaces, top=(C, 500))
    for name in ("text_neighbours_12", "text_neighbours_500", "image_neighbours_500"):
        assert numbers[name] == 1
    assert numbers["image_neighbours_12"] < 1


def test_an_image_is_never_its_own_neighbour_even_beside_copies():
    # Six copies: FAISS may well not list an image among the first three at its own cosine.
    rows = torch.ones(6, 4, dtype=torch.float64) / 2
    nearest = image_neighbours(rows, 2)
    assert nearest.shape == (6, 2)
    for i, neighbours in enumerate(nearest.tolist()):
        assert i not in neighbours
        assert len(set(neighbours)) == 2


def test_overlap_counts_whatever_the_order():
    ours, theirs = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[3, 1, 9], [7, 8, 9]])
    assert overlap(ours, theirs, 3) == pytest.approx(1 / 3)
    assert overlap(ours, theirs, 1) == 0


def test_pairs_come_from_drawn_images_when_there_are_many(spaces):
    student, teacher, _ = spaces
    drawn = np.random.default_rng(0).choice(N, 15, replace=False)
    numbers = space_metrics(*spaces, max_pairs_images=15)
    assert numbers["pairwise_spearman"] == pytest.approx(slow_spearman(student[drawn], teacher[drawn]))
    whole = space_metrics(*spaces)
    assert {name for name in whole if whole[name] != numbers[name]} == {"pairwise_spearman"}


@pytest.mark.parametrize("value", [0.0, 0.1, -3.7])
def test_a_collapsed_student_gives_zero_not_nan(spaces, value):
    _, teacher, text = spaces
    for pair in ((torch.full((N, D), value), teacher), (teacher, torch.full((N, D), value))):
        numbers = space_metrics(*pair, text)
        json.dumps(numbers, allow_nan=False)
        assert numbers["linear_cka"] == 0
        assert numbers["pairwise_spearman"] == 0


def test_rows_of_zeros_have_cosine_zero(spaces):
    student, teacher, text = spaces
    student[:10] = 0
    numbers = space_metrics(student, teacher, text)
    json.dumps(numbers, allow_nan=False)
    assert numbers["cosine"] == pytest.approx(sum(map(cos, student, teacher)) / N)
    assert numbers["pairwise_spearman"] == pytest.approx(slow_spearman(student, teacher))


def test_one_image_has_no_pairs(spaces):
    student, teacher, text = (rows[:1] for rows in spaces)
    text_only = {"cosine", "vlalign", "text_neighbours_1", "text_neighbours_5", "text_neighbours_10"}
    assert set(space_metrics(student, teacher, text)) == text_only


def test_two_images_have_one_pair_which_cannot_be_ranked(spaces):
    student, teacher, text = spaces
    numbers = space_metrics(student[:2], teacher[:2], text)
    assert "pairwise_spearman" not in numbers
    assert numbers["image_neighbours_10"] == 1
    assert "pairwise_spearman" in space_metrics(student[:3], teacher[:3], text)


def test_a_student_of_another_size_is_compared_without_the_teachers_axes(spaces):
    student, teacher, text = spaces
    numbers = space_metrics(student[:, :5], teacher, text, top=(3,))
    assert set(numbers) == {"linear_cka", "image_neighbours_3", "pairwise_spearman"}
    assert numbers["linear_cka"] == pytest.approx(slow_cka(student[:, :5], teacher))


def test_inputs_stay_as_they_were_and_need_no_gradient(spaces):
    student, teacher, text = spaces
    before = student.clone()
    numbers = space_metrics(student.requires_grad_(), teacher, text)
    assert torch.equal(student.detach(), before)
    assert all(type(value) is float for value in numbers.values())


@pytest.mark.parametrize(
    ("student", "teacher", "text", "words"),
    [
        (torch.ones(0, D), torch.ones(0, D), torch.ones(C, D), "no image"),
        (torch.ones(N, D), torch.ones(N, D), torch.ones(0, D), "no text"),
        (torch.ones(N, D), torch.ones(N - 1, D), torch.ones(C, D), "do not fit"),
        (torch.ones(N, D), torch.ones(N, D), torch.ones(C, D + 1), "do not fit"),
        (torch.full((N, D), math.nan), torch.ones(N, D), torch.ones(C, D), "student has numbers"),
    ],
)
def test_what_cannot_be_compared_is_an_error(student, teacher, text, words):
    with pytest.raises(ValueError, match=words):
        space_metrics(student, teacher, text)


@pytest.mark.parametrize("settings", [{"k": 0}, {"top": (0, 5)}])
def test_fewer_than_one_neighbour_is_an_error(spaces, settings):
    with pytest.raises(ValueError, match="at least 1"):
        space_metrics(*spaces, **settings)
