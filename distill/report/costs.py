"""What runs took, and whether that can be compared: on one machine, none beside another."""

from __future__ import annotations

import json
from collections.abc import Sequence

from distill.report.collect import Run
from distill.report.tables import Cell, Table, by_group, constant_cell
from distill.report.tasks import Part

# Heading, the names that lead to the number in a summary, the unit, decimals.
COST = (
    ("time (s)", ("seconds",), 1, 0),
    ("{unit}/s", ("images_per_s",), 1, 0),
    ("peak memory, host (GB)", ("peak_memory_bytes", "host"), 1e9, 2),
    ("peak memory, device (GB)", ("peak_memory_bytes", "device"), 1e9, 2),
    ("parameters (million)", ("student_parameters",), 1e6, 2),
)
NAMED = 3
# TensorBoard's files say when a run began and where: events.out.tfevents.SECONDS.HOST.PROCESS.NUMBER
EVENTS = "events.out.tfevents."


def cost_table(part: Part) -> Table:
    """Return what a run of every group took, means over its seeds, and shares of the baseline's."""
    columns = [
        (
            heading.format(unit=part.task.unit),
            [constant_cell(group.spread(*names), digits, unit=unit) for group in part.groups],
        )
        for heading, names, unit, digits in COST
    ]
    base = part.baseline.spread("seconds")
    if base is not None and base.mean > 0 and not why_not(part.counted):
        cells = []
        for group in part.groups:
            own = group.spread("seconds")
            share = own.mean / base.mean if own is not None else None
            cells.append(Cell() if share is None else Cell(text=f"{share:.2f}", value=share))
        columns.insert(1, ("time, of the baseline's", cells))
    return by_group("Cost of a run", part, columns)


def why_not(runs: Sequence[Run]) -> str:
    """Return why times and memory of some runs cannot be compared, in a sentence; empty where they can."""
    if len(runs) < 2:
        return ""
    machines = {json.dumps(run.table("hardware"), sort_keys=True) for run in runs}
    if len(machines) > 1:
        return f"Times are of {len(machines)} kinds of machine: they say nothing of the settings."
    told = {run.name: time for run in runs if (time := _time(run)) is not None}
    if len({host for host, _, _ in told.values()}) > 1:
        return "The runs were on several machines: their times say nothing of the settings."
    beside = _overlapping(told)
    if beside:
        more = f" and {len(beside) - NAMED} more" if len(beside) > NAMED else ""
        names = "; ".join(beside[:NAMED])
        return f"Not alone on the machine, so that times say little of the settings: {names}{more}."
    if len(told) < len(runs):
        count = len(runs) - len(told)
        return f"Whether {count} of {len(runs)} runs were alone on the machine is not known."
    return ""


def _time(run: Run) -> tuple[str, float, float] | None:
    """Return where a run was, when it began and when it ended, in seconds; None where that is not known.

    A run that was stopped has gone on at another time: its first and last beginning are its ends.
    """
    begun = []
    for file in run.path.glob(f"{EVENTS}*"):
        seconds, _, rest = file.name.removeprefix(EVENTS).partition(".")
        host = rest.rsplit(".", 2)[0]
        if seconds.isdecimal() and host:
            begun.append((float(seconds), host))
    length = run.number("seconds")
    if not begun or length is None:
        return None
    first, last = min(begun), max(begun)
    return first[1], first[0], last[0] + (length if first == last else 0.0)


def _overlapping(times: dict[str, tuple[str, float, float]]) -> list[str]:
    """Return the names of runs of which another's time is in their own, by more than a tenth of either."""
    order = sorted(times.items(), key=lambda item: item[1][1])
    found: dict[str, None] = {}
    latest: tuple[str, float, float] | None = None  # of those begun so far the one that ends last
    for name, (_, begin, end) in order:
        if latest is not None and latest[2] - begin - 1 > 0.1 * min(end - begin, latest[2] - latest[1]):
            found |= dict.fromkeys([latest[0], name])
        if latest is None or end > latest[2]:
            latest = (name, begin, end)
    return list(found)
