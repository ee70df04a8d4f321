"""``distill doctor``: what to put into a bug report."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path

import click

from cache.runtime.errors import printable
from distill.commands.options import EXISTING_FOLDER, json_option, option
from distill.commands.tables import loading, print_json


@click.command()
@option("--folder", "Where caches and runs will lie: its free room and speed.", EXISTING_FOLDER, ".")
@json_option("Print it as JSON.")
def doctor(folder: Path, as_json: bool) -> None:
    """Say what this machine has, and try both stages.

    On a few drawn images, for bug reports. Exit status 1 when something fails.

    Example: distill doctor --folder artifacts
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from distill.doctor import FAILED, OK, examine

    with loading():
        findings = examine(folder)
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        lines = Table.grid(padding=(0, 2))
        for finding in findings:
            state = "" if finding.state == OK else f"{finding.state}: "
            fix = f". Fix: {finding.fix}" if finding.fix else ""
            lines.add_row(finding.name, Text(printable(f"{state}{finding.text}{fix}")))
        Console(width=98).print(lines)
    sys.exit(1 if any(finding.state == FAILED for finding in findings) else 0)
