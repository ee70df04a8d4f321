"""Where the points and ticks of a chart stand."""

from __future__ import annotations

import pytest

from distill.report.charts import BOTTOM, TOP, Axis, Point, Series, draw


def drawn(values, **axis):
    series = Series(label="one", points=tuple(Point(x=1 + i, y=y) for i, y in enumerate(values)), style=0)
    return draw("c", "c", [series], x=Axis(name="epoch", whole=True), y=Axis(name="number", **axis))


@pytest.mark.parametrize("value", [1e-4, 0.05, 1.0, 90.0, 1e9])
@pytest.mark.parametrize("rounding", [0.0, 1e-12])
def test_a_number_that_stays_the_same_stands_in_the_middle_of_an_axis_that_can_be_read(value, rounding):
    chart = drawn([value, value * (1 + rounding), value], low=0)
    heights = [y for _, y in chart.series[0].places]
    assert heights == pytest.approx([(TOP + BOTTOM) / 2] * 3, abs=0.11 * (BOTTOM - TOP))
    written = [text for _, text in chart.y_ticks]
    assert 3 <= len(written) == len({*written})
    assert 0 <= float(written[0]) < value < float(written[-1]) <= 2 * value


def test_small_numbers_leave_an_axis_its_name():
    chart = drawn([0.0006, 0.00012, 0.00001], low=0)
    assert [text for _, text in chart.y_ticks] == ["0", "2e-4", "4e-4", "6e-4"]


def test_zero_is_written_as_zero_and_numbers_keep_within_their_axis():
    assert [text for _, text in drawn([-0.5, 0.5]).y_ticks] == [
        "-0.6",
        "-0.4",
        "-0.2",
        "0",
        "0.2",
        "0.4",
        "0.6",
    ]
    assert drawn([0.0, 0.0], low=0).y_ticks[0] == (BOTTOM, "0")
    assert drawn([100.0], low=0, high=100).y_ticks[-1] == (TOP, "100")
