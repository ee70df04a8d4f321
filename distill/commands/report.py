"""``distill report``, ``compare``: many finished runs on one page; two of them side by side."""

from __future__ import annotations

import os
import shlex
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cache.runtime.errors import printable
from distill.commands.options import EXISTING_FOLDER, FILE_TO_WRITE, FOLDER, json_option, option
from distill.commands.tables import print_json, table, working

if TYPE_CHECKING:
    from distill.report.compare import Result
    from distill.spread import Spread


def _no_more(ctx: click.Context, param: click.Parameter, more: tuple[str, ...]) -> None:
    """Refuse runs that are given one by one to a command that takes a folder of them, or two."""
    if not more:
        return
    runs = [*map(str, (ctx.params[name] for name in ("runs", "one", "other") if name in ctx.params)), *more]
    several = f"'distill report {os.path.commonpath(map(os.path.abspath, runs))} --out report.html'"
    two = f"'{shlex.join(['distill', 'compare', *runs])}', or " if len(runs) == 2 else ""
    raise click.UsageError(
        f"{ctx.command_path} does not take {len(runs)} runs. Fix: {two}one folder that holds them: {several}."
    )


no_more = click.argument("more", nargs=-1, metavar="", callback=_no_more, expose_value=False)


@click.command()
@click.argument("runs", type=EXISTING_FOLDER)
@no_more
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

    with working("report", "runs") as progress:
        written = write_report(runs, out, baseline=baseline, progress=progress)
    for answer in written.answers:
        click.echo(_whole_words(answer))
    if written.left_out:
        count = f"{len(written.left_out)} runs are" if len(written.left_out) > 1 else "1 run is"
        some = "; ".join(f"{name} {reason}" for name, reason in written.left_out[:3])
        click.echo(printable(f"{count} left out: {some}{'; ...' if len(written.left_out) > 3 else ''}"))
    click.echo(f"wrote {', '.join(map(str, written.files))}")


@click.command()
@click.argument("one", metavar="RUN", type=FOLDER)
@click.argument("other", metavar="RUN", type=FOLDER)
@no_more
@json_option("Print settings, numbers and tests as JSON.")
def compare(one: Path, other: Path, as_json: bool) -> None:
    """Say what differs between two runs.

    Settings and results, the second less the first. A RUN is a run's folder, all seeds of one setting of a
    sweep as RUNS/SETTING, or a folder of runs that differ in the seed alone. Seeds that both have are
    compared in pairs; losses of other terms, and times of runs that were not alone, are not compared.

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
    if compared.answer:
        click.echo(_whole_words(compared.answer) + "\n")
    for line in compared.settings or ["the settings are the same"]:
        click.echo(printable(line))
    for line in (*compared.surroundings, *compared.left_out):
        click.echo(_whole_words(line))
    how = f"{compared.how}; p below is Holm's, over the rows of a table"
    click.echo(_whole_words(how if any(result.test for result in compared.results) else compared.how))
    for section in dict.fromkeys(result.section for result in compared.results):
        rows = [_row(result) for result in compared.results if result.section == section]
        heads = ["", *compared.names, "difference (95% interval)", "p"]
        table(section, heads, rows)


def _row(result: Result) -> list[str]:
    from distill.report.difference_tables import p_text

    digits = 2 if result.called.endswith("(%)") else 3
    test, difference = result.test, "" if result.difference is None else f"{result.difference:+.{digits}f}"
    interval = f" ({test.low:+.{digits}f} to {test.high:+.{digits}f})" if test else ""
    p = "" if result.p_value is None else p_text(result.p_value)
    sides = (_spread(side, digits) for side in (result.one, result.other))
    return [result.called, *sides, difference + interval, p]


def _whole_words(text: str) -> str:
    """Return a text in lines as wide as the terminal, broken between words."""
    width = shutil.get_terminal_size().columns
    return textwrap.fill(printable(text), width=width, break_long_words=False, break_on_hyphens=False)


def _spread(values: Spread | None, digits: int) -> str:
    if values is None:
        return ""
    around = f" ± {values.std:.{digits}f}" if values.std is not None else ""
    return f"{values.mean:,.{digits}f}{around}"
