"""What finished runs say: report, compare."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cache.runtime.errors import printable
from cli.root import main
from distill.commands.options import EXISTING_FOLDER, FILE_TO_WRITE, FOLDER, number, table


@main.command()
@click.argument("runs", type=EXISTING_FOLDER)
@click.option("--out", required=True, type=FILE_TO_WRITE, help="The HTML file; .md and .csv go beside it.")
def report(runs: Path, out: Path) -> None:
    """Write one HTML page of RUNS, a run's folder or one that holds several.

    It reads the run folders alone: no cache, no images, no teacher.

    \b
    Example:
      distill report runs --out report.html
    """
    from distill.report.page import report as write_report

    written = write_report(runs, out)
    click.echo(f"wrote {', '.join(map(str, written))}")


@main.command()
@click.argument("one", metavar="RUN", type=FOLDER)
@click.argument("other", metavar="RUN", type=FOLDER)
@click.option("--json", "as_json", is_flag=True, help="Print settings, numbers and tests as JSON.")
def compare(one: Path, other: Path, as_json: bool) -> None:
    """Say what differs between two runs: settings and results, the second less the first.

    A RUN is a run's folder, all seeds of one setting of a sweep as RUNS/SETTING, or a folder of runs that
    differ in the seed alone. Seeds that both have are compared in pairs.

    \b
    Examples:
      distill compare runs/first runs/second
      distill compare runs/losses/cls runs/losses/cls+mse --json
    """
    from distill.report.compare import compare_runs

    found = compare_runs(one, other)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    for line in found.settings or ["the settings are the same"]:
        click.echo(line)
    for line in found.surroundings:
        click.echo(printable(line))
    rows = [
        [r.metric, _spread(r.one), _spread(r.other), number(r.difference), *_tested(r.test)]
        for r in found.results
    ]
    heads = ["", str(one), str(other), "difference", "95% interval", "t", "p", "n"]
    table(found.how, heads, rows)


def _spread(found: object) -> str:
    mean, std = getattr(found, "mean", None), getattr(found, "std", None)
    return number(mean) + (f" ± {std:.3f}" if std is not None else "")


def _tested(test: object) -> list[str]:
    if test is None:
        return ["", "", "", ""]
    low, high, n = (getattr(test, name) for name in ("low", "high", "n"))
    t, p = (getattr(test, name) for name in ("statistic", "p_value"))
    chance = "< 0.001" if p is not None and p < 0.001 else number(p)
    return [f"{low:.3f} to {high:.3f}", number(t), chance, ", ".join(map(str, n))]
