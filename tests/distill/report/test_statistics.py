from __future__ import annotations

import math

import numpy as np
import pytest

from distill.report.statistics import best_of, paired_t, t_quantile, two_sided_p, welch_t
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


def test_the_best_is_marked_only_where_the_spread_allows_it():
    assert best_of([[10.0, 11.0, 10.5], [20.0, 21.0, 20.5], [12.0, 12.5, 13.0]]) == 1
    assert best_of([[10.0, 30.0, 20.5], [20.0, 31.0, 20.5]]) is None
    assert best_of([[10.0], [20.0]]) is None
    assert best_of([[10.0, 10.5], [90.0]]) is None
    assert best_of([[10.0, 10.0], [20.0, 20.0]]) is None  # no spread: nothing to test by
    assert best_of([[10.0, 10.5]]) is None


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
