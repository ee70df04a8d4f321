"""``distill report``, ``compare``: many finished runs on one page; two of them side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.runtime.errors import printable
from distill.commands.options import EXISTING_FOLDER, FILE_TO_WRITE, FOLDER, json_option, option
from distill.commands.tables import number, print_json, table

if TYPE_CHECKING:
    from distill.report.statistics import TTest
    from distill.spread import Spread


@click.command()
@click.argument("runs", type=EXISTING_FOLDER)
@option("--out", "The HTML file; .md and .csv go beside it.", FILE_TO_WRITE, required=True)
@option("--baseline", "Compare with this run or setting.  [default: the first]", metavar="NAME")
def report(runs: Path, out: Path, baseline: str | None) -> None:
    """Write one HTML page of RUNS.

    RUNS is a run's folder or one that holds several. It reads the run folders alone: no cache, no images,
    no teacher.

    \b
    Example:
      distill report runs --out report.html --baseline cls
    """
    from distill.report.page import report as write_report

    written = write_report(runs, out, baseline=baseline)
    click.echo(f"wrote {', '.join(map(str, written))}")


@click.command()
@click.argument("one", metavar="RUN", type=FOLDER)
@click.argument("other", metavar="RUN", type=FOLDER)
@json_option("Print settings, numbers and tests as JSON.")
def compare(one: Path, other: Path, as_json: bool) -> None:
    """Say what differs between two runs.

    Settings and results, the second less the first. A RUN is a run's folder, all seeds of one setting of a
    sweep as RUNS/SETTING, or a folder of runs that differ in the seed alone. Seeds that both have are
    compared in pairs.

    \b
    Examples:
      distill compare runs/first runs/second
      distill compare runs/losses/cls runs/losses/cls+mse --json
    """
    from distill.report.compare import compare_runs

    compared = compare_runs(one, other)
    if as_json:
        print_json(asdict(compared))
        return
    for line in compared.settings or ["the settings are the same"]:
        click.echo(line)
    for line in compared.surroundings:
        click.echo(printable(line))
    rows = [
        [r.metric, _spread(r.one), _spread(r.other), number(r.difference), *_tested(r.test)]
        for r in compared.results
    ]
    heads = ["", str(one), str(other), "difference", "95% interval", "t", "p", "n"]
    table(compared.how, heads, rows)


def _spread(values: Spread | None) -> str:
    if values is None:
        return ""
    return number(values.mean) + (f" ± {values.std:.3f}" if values.std is not None else "")


def _tested(test: TTest | None) -> list[str]:
    if test is None:
        return ["", "", "", ""]
    p = test.p_value
    chance = "< 0.001" if p is not None and p < 0.001 else number(p)
    interval = f"{test.low:.3f} to {test.high:.3f}"
    return [interval, number(test.statistic), chance, ", ".join(map(str, test.n))]
