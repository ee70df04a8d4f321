"""``distill doctor``: what to put into a bug report."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from distill.commands.options import EXISTING_FOLDER, json_option, option
from distill.commands.tables import print_json


@click.command()
@option("--folder", "Where caches and runs will lie: its free room and speed.", EXISTING_FOLDER, ".")
@json_option("Print it as JSON.")
def doctor(folder: Path, as_json: bool) -> None:
    """Say what this machine has, and try both stages.

    On a few drawn images, for bug reports. Exit status 1 when something fails.

    Example: distill doctor --folder artifacts
    """
    import textwrap

    from distill.doctor import FAILED, OK, examine
    from distill.doctor import as_json as plain

    findings = examine(folder)
    if as_json:
        print_json(plain(findings))
    for finding in () if as_json else findings:
        text = finding.said + (f". Fix: {finding.fix}" if finding.fix else "")
        state = "" if finding.state == OK else f"{finding.state}: "
        first, *rest = textwrap.wrap(f"{state}{text}", width=80, break_long_words=False) or [""]
        click.echo(f"{finding.name:<18}{first}")
        for line in rest:
            click.echo(f"{'':18}{line}")
    sys.exit(1 if any(finding.state == FAILED for finding in findings) else 0)
