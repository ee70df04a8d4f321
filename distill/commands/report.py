"""``distill report``: one page of finished runs."""

from __future__ import annotations

from pathlib import Path

import click

from distill.commands.options import EXISTING_FOLDER, FILE_TO_WRITE, option


@click.command()
@click.argument("runs", type=EXISTING_FOLDER)
@option("--out", "The HTML file; .md and .csv go beside it.", FILE_TO_WRITE, required=True)
def report(runs: Path, out: Path) -> None:
    """Write one HTML page of RUNS.

    RUNS is a run's folder or one that holds several. It reads the run folders alone: no cache, no images,
    no teacher.

    \b
    Example:
      distill report runs --out report.html
    """
    from distill.report.page import report as write_report

    written = write_report(runs, out)
    click.echo(f"wrote {', '.join(map(str, written))}")
