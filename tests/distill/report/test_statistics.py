from __future__ import annotations

import math

import numpy as np
import pytest

from distill.report.statistics import (
    alike_best,
    holm,
    paired_t,
    pooled,
    t_quantile,
    t_test,
    two_sided_p,
    welch_t,
)
from distill.spread import as_columns, spread


@pytest.mark.parametrize(
    # Two-sided 5% and 1% points of Student's t, as printed in tables.
    ("degrees", "five", "one"),
    [(1, 12.706, 63.657), (2, 4.303, 9.925), (4, 2.776, 4.604), (10, 2.228, 3.169), (30, 2.042, 2.750)],
)
def test_students_t_has_the_values_of_the_printed_tables(degrees, five, one):
    assert t_quantile(0.975, degrees) == pytest.approx(five, abs=6e-4)
    assert t_quantile(0.995, degrees) == pytest.approx(one, abs=6e-4)
    assert two_sided_p(five, degrees) == pytest.approx(0.05, abs=1e-4)


@pytest.mark.parametrize("degrees", [1.3, 3, 7.5])
def test_the_tail_is_the_integral_of_the_density(degrees):
    t = np.linspace(0, 2, 200_001)
    constant = math.gamma((degrees + 1) / 2) / (math.sqrt(degrees * math.pi) * math.gamma(degrees / 2))
    inside = np.trapezoid(constant * (1 + t**2 / degrees) ** (-(degrees + 1) / 2), t)
    assert two_sided_p(2.0, degrees) == pytest.approx(1 - 2 * inside, abs=1e-8)


def test_a_paired_test_is_that_of_its_differences():
    result = paired_t([1.0, 2.0, 3.0], [2.0, 4.0, 6.0])  # differences 1, 2, 3: mean 2, deviation 1
    assert result.statistic == pytest.approx(2 * math.sqrt(3))
    assert result.p_value == pytest.approx(0.0742, abs=1e-4)
    assert (result.low, result.high) == pytest.approx(
        (2 - 4.3027 / math.sqrt(3), 2 + 4.3027 / math.sqrt(3)), abs=1e-3
    )


def test_welch_equals_the_formula_written_out():
    one, other = [20.0, 22.0, 19.0, 21.0], [25.0, 31.0, 28.0]
    a, b = np.var(one, ddof=1) / 4, np.var(other, ddof=1) / 3
    result = welch_t(one, other)
    assert result.statistic == pytest.approx((28.0 - 20.5) / math.sqrt(a + b))
    assert result.degrees == pytest.approx((a + b) ** 2 / (a**2 / 3 + b**2 / 2))
    assert result.low < result.difference < result.high


def by_seed(*numbers):
    return dict(enumerate(numbers))


def test_all_that_cannot_be_told_from_the_best_is_named():
    far, near = by_seed(20.0, 21.0, 20.5), by_seed(19.9, 21.1, 20.4)
    low = by_seed(10.0, 11.0, 10.5)
    assert alike_best([low, far, by_seed(12.0, 12.5, 13.0)]) == (1, frozenset())
    assert alike_best([low, far, near]) == (1, {2})
    assert alike_best([low, far, near], lower=True) == (0, frozenset())
    assert alike_best([by_seed(10.0, 30.0, 20.5), by_seed(20.0, 31.0, 20.5)]) == (1, {0})
    # A group of one seed can be told from none, and none from it.
    assert alike_best([far, by_seed(5.0)]) == (0, {1})
    assert alike_best([by_seed(10.0, 10.5), by_seed(90.0)]) == (-1, frozenset())
    assert alike_best([by_seed(10.0), by_seed(20.0)]) == (-1, frozenset())
    assert alike_best([by_seed(10.0, 10.5)]) == (-1, frozenset())
    assert alike_best([by_seed(10.0, 10.0), by_seed(20.0, 20.0)]) == (
        1,
        {0},
    )  # nothing varies: nothing to test by


def test_holm_multiplies_the_smallest_p_by_all_the_next_by_one_less_and_never_falls():
    assert holm([0.04, 0.01, None, 0.03]) == pytest.approx([0.06, 0.03, None, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_seeds_are_paired_where_two_are_common_else_it_is_welchs_test():
    paired = t_test({0: 1.0, 1: 2.0, 2: 3.0, 9: 7.0}, {0: 2.0, 1: 4.0, 2: 6.0})
    assert (paired.design, paired.n, paired.difference) == ("paired", (3,), 2.0)
    assert t_test({0: 1.0, 1: 2.0}, {2: 5.0, 3: 6.5}).design == "welch"
    assert t_test({0: 1.0}, {0: 5.0}) is None


def test_the_pooled_test_of_two_is_the_paired_one_and_of_more_that_of_the_linear_model():
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3)) + rng.normal(size=3) * 5 + np.arange(4)[:, None]
    sides = [dict(enumerate(row.tolist())) for row in values]
    assert pooled(sides[:2]) is None
    within = pooled(sides)
    # Least squares of one number a setting and one a seed, float64.
    setting, seed = np.repeat(np.arange(4), 3), np.tile(np.arange(3), 4)
    design = np.column_stack([np.eye(4)[setting], np.eye(3)[seed][:, 1:]])
    found, residual, *_ = np.linalg.lstsq(design, values.ravel(), rcond=None)
    assert within.degrees == 6
    assert within.variance == pytest.approx(residual[0] / 6)
    contrast = np.array([-1.0, 0, 1, 0, 0, 0])
    error = math.sqrt(residual[0] / 6 * contrast @ np.linalg.inv(design.T @ design) @ contrast)
    result = t_test(sides[0], sides[2], within)
    assert (result.design, result.n, result.degrees) == ("blocks", (3,), 6)
    assert result.statistic == pytest.approx((contrast @ found) / error)
    assert result.p_value == pytest.approx(two_sided_p(result.statistic, 6))
    assert pooled([*sides, {0: 1.0, 1: 2.0}]) is None  # a setting without one of the seeds


def test_a_deviation_is_of_a_sample_not_of_a_population():
    of_four = spread([1.0, 2.0, 4.0, 9.0])
    assert (of_four.n, of_four.mean) == (4, 4.0)
    assert of_four.std == pytest.approx(np.std([1, 2, 4, 9], ddof=1))
    assert of_four.std != pytest.approx(np.std([1, 2, 4, 9]), rel=0.1)
    assert as_columns("x", [1.0, 2.0, 4.0, 9.0]) == {"x": 4.0, "x_std": of_four.std}
    assert as_columns("x", []) == {"x": None, "x_std": None}


def test_one_number_has_a_mean_and_no_deviation():
    assert spread([]) is None
    assert spread([3.0]).std is None
    with pytest.raises(ValueError, match="two pairs"):
        paired_t([1.0], [2.0])
    with pytest.raises(ValueError, match="two numbers"):
        welch_t([1.0], [2.0, 3.0])
