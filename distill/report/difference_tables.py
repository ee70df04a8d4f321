"""Tables of what every setting is more than the baseline, with interval and test."""

from __future__ import annotations

from distill.report.answer import signed
from distill.report.differences import Difference, compared, measures
from distill.report.tables import Cell, Row, Table
from distill.report.tasks import Part

DESIGNS = {"paired": "paired t", "blocks": "paired t, one variance", "welch": "Welch's t"}


def differences_tables(part: Part) -> list[Table]:
    """Return a table a measure of the answer, a row a setting; none where nothing could be tested."""
    tables = []
    for told in (compared(part, measure) for measure in measures(part)):
        if told is None or not any(one.test for one in told.differences):
            continue
        rows = tuple(
            Row(head=one.group.label, style=one.group.number, cells=_cells(one, told.measure.digits))
            for one in told.differences
        )
        unit = " (points)" if told.measure.unit else ""
        columns = ("setting", f"difference{unit}", "95% interval", "p (Holm)", "n", "test")
        title = f"{told.measure.called}: less the baseline, {part.baseline.label}"
        tables.append(Table(title=title, columns=columns, rows=rows))
    return tables


def _cells(one: Difference, digits: int) -> tuple[Cell, ...]:
    points = Cell(text=signed(one.points, digits), value=one.points)
    if one.test is None:
        return (points, *[Cell()] * 4)
    low, high = (signed(end, digits) for end in (one.test.low, one.test.high))
    return (
        points,
        Cell(text=f"{low} to {high}", value=one.test.low),
        Cell() if one.p_value is None else Cell(text=p_text(one.p_value), value=one.p_value),
        Cell(text=" and ".join(map(str, one.test.n)), value=min(one.test.n)),
        Cell(text=DESIGNS[one.test.design]),
    )


def p_text(p_value: float) -> str:
    """Return a p-value in three digits."""
    return "< 0.001" if p_value < 0.001 else f"{p_value:.3f}"
